"""`extended-dlc doctor` and the AWS account: credentials, bootstrap, the base image, quotas."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from extended_dlc.doctor import Finding, Problem, Unknown, account
from tests.support.doctor import (
    ACCOUNT,
    OURS,
    REGION,
    Programs,
    assert_ok,
    assert_problem,
    assert_unknown,
    client,
    mirrored,
    publish,
    settings,
    target,
    use,
)


def serve(answer: Callable[[str, Any], tuple[int, str]]) -> Iterator[str]:
    """An AWS that gives the answers that moto does not."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            status, content = answer(action, json.loads(body) if action else body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def refusal(action: str, body: Any) -> tuple[int, str]:
    """Nothing is allowed, and a session is over."""
    if action == "GetAuthorizationToken":
        return 200, json.dumps({"authorizationData": []})
    if action:
        return 400, json.dumps({"__type": "AccessDeniedException", "message": "not authorized to perform it"})
    return 403, (
        "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code><Message>The security token included in the "
        "request is expired</Message></Error></ErrorResponse>"
    )


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for url in serve(refusal):
        use(url, monkeypatch)
        yield


QUOTAS = [{"QuotaName": f"ml.c5.{n}xlarge for endpoint usage", "QuotaCode": f"L-{n}", "Value": 1.0} for n in range(250)]
QUOTAS += [
    {"QuotaName": "ml.m5.xlarge for training job usage", "QuotaCode": "L-OTHER", "Value": 0.0},
    {"QuotaName": "ml.m5.xlarge for endpoint usage", "QuotaCode": "L-FIVE", "Value": 5.0},
    {"QuotaName": "ml.g5.xlarge for endpoint usage", "QuotaCode": "L-ZERO", "Value": 0.0},
]


BUILDS = [
    {"QuotaName": "Concurrently running builds for Linux/Large environment", "QuotaCode": "L-LARGE", "Value": 1.0},
    {"QuotaName": "Concurrently running builds for Linux/Small environment", "QuotaCode": "L-SMALL", "Value": 0.0},
]


def quotas(action: str, body: Any) -> tuple[int, str]:
    assert action == "ListServiceQuotas"
    if body["ServiceCode"] == "codebuild":
        return 200, json.dumps({"Quotas": BUILDS})
    assert body["ServiceCode"] == "sagemaker"
    start = int(body.get("NextToken", 0))
    end = start + body["MaxResults"]
    following = {"NextToken": str(end)} if end < len(QUOTAS) else {}
    return 200, json.dumps({"Quotas": QUOTAS[start:end], **following})


@pytest.fixture
def quota_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for url in serve(quotas):
        use(url, monkeypatch)
        yield


def test_credentials_that_aws_takes_are_shown(tmp_path: Path, aws: str) -> None:
    assert_ok(account.credentials(target(tmp_path)), f"^account {ACCOUNT}, ")


def test_no_credentials_are_named_and_what_depends_on_them_is_unknown(
    tmp_path: Path, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert_problem(account.credentials(target(tmp_path)), "there are no AWS credentials", "aws configure, or aws sso")
    for check in (account.bootstrap, account.base_image, account.quota):
        assert_unknown(check(target(tmp_path)), "no AWS credentials: see 'credentials'")


def test_a_profile_that_does_not_exist_is_named(tmp_path: Path, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    assert_problem(account.credentials(target(tmp_path)), "AWS_PROFILE.*elsewhere", "aws configure list-profiles")


@pytest.mark.usefixtures("refusing")
def test_credentials_that_ended_are_named(tmp_path: Path) -> None:
    assert_problem(
        account.credentials(target(tmp_path)), "does not take your credentials: ExpiredToken", "aws sso login"
    )


@pytest.mark.usefixtures("refusing")
def test_what_one_may_not_ask_is_unknown(tmp_path: Path) -> None:
    assert_unknown(account.bootstrap(target(tmp_path)), "no ssm:GetParameter")
    assert_unknown(account.quota(target(tmp_path)), "no servicequotas:ListServiceQuotas")


@pytest.mark.parametrize("qualifier", ["hnb659fds", "mycorp"])
def test_the_bootstrap_is_told_by_its_version(tmp_path: Path, aws: str, qualifier: str) -> None:
    context = {} if qualifier == "hnb659fds" else {"@aws-cdk/core:bootstrapQualifier": qualifier}
    (tmp_path / "cdk.json").write_text(json.dumps({"context": context}))
    command = f"^npx cdk bootstrap aws://{ACCOUNT}/{REGION}$"
    parameter = f"/cdk-bootstrap/{qualifier}/version"
    assert_problem(account.bootstrap(target(tmp_path)), f"not bootstrapped in {REGION}", command)
    for version, judge in {
        "5": lambda found: assert_problem(found, "has version 5: 6 is the oldest", command),
        "6": lambda found: assert_ok(found, f"^version 6 in {REGION}$"),
        "30": lambda found: assert_ok(found, "^version 30"),
    }.items():
        client("ssm").put_parameter(Name=parameter, Value=version, Type="String", Overwrite=True)
        judge(account.bootstrap(target(tmp_path)))
    client("ssm").delete_parameter(Name=parameter)


def test_a_base_in_ecr_is_asked_for_as_a_pull_does(tmp_path: Path, aws: str) -> None:
    ecr = client("ecr")
    here = target(tmp_path, settings(f"{OURS}:1"))
    other = f"^pick another: extended-dlc catalog list --region {REGION}$"
    assert_problem(account.base_image(here), f"no repository ours in registry {ACCOUNT}", other)
    ecr.create_repository(repositoryName="ours")
    assert_problem(account.base_image(here), f"there is no ours:1 in registry {ACCOUNT}", other)
    digest = publish()
    assert_ok(account.base_image(here), "ours:1 can be pulled")
    assert_ok(account.base_image(target(tmp_path, settings(f"{OURS}@{digest}"))), "can be pulled")
    ecr.delete_repository(repositoryName="ours", force=True)


@pytest.mark.usefixtures("refusing")
def test_a_forbidden_base_in_ecr_is_named(tmp_path: Path) -> None:
    assert_problem(
        account.base_image(target(tmp_path)),
        "forbidden: you may not pull huggingface-pytorch-inference from registry 763104351884 in us-east-1",
        "ecr:BatchGetImage .*public base",
    )


def test_a_login_that_is_not_allowed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in serve(lambda action, body: (400, json.dumps({"__type": "AccessDeniedException"}))):
        use(url, monkeypatch)
        assert_problem(
            account.base_image(target(tmp_path)), "cannot log in", "ecr:GetAuthorizationToken.*extended-dlc login"
        )


ELSEWHERE = "registry.example.com/team/base:1"


@pytest.mark.parametrize(
    ("errors", "kind", "message", "remedy"),
    [
        ("unauthorized: authentication required", Problem, "registry.example.com refuses", "^docker login registry"),
        ("denied: requested access to the resource is denied", Problem, "forbidden", "^docker login registry"),
        ("no such manifest: registry.example.com/team/base:1", Problem, "there is no registry", "correct image.base"),
        ("dial tcp: lookup registry.example.com: i/o timeout", Unknown, "docker pull registry.example.com", ""),
    ],
)
def test_a_base_elsewhere_is_asked_for_by_the_engine(
    tmp_path: Path, path: Programs, errors: str, kind: type[Finding], message: str, remedy: str
) -> None:
    path("docker", f"sys.exit({errors!r})")
    finding = account.base_image(target(tmp_path, settings(ELSEWHERE)))
    assert isinstance(finding, kind)
    assert re.search(message, finding.message)
    assert re.search(remedy, finding.remedy if isinstance(finding, Problem) else "")


@pytest.mark.parametrize(("word", "seen"), [("image", "is on this machine"), ("manifest", "can be pulled")])
def test_a_base_elsewhere_that_is_there_is_fine(tmp_path: Path, path: Programs, word: str, seen: str) -> None:
    path("docker", f"sys.exit(0 if words == [{word!r}, 'inspect', {ELSEWHERE!r}] else 'no')")
    assert_ok(account.base_image(target(tmp_path, settings(ELSEWHERE))), seen)


def test_another_type_for_an_endpoint_that_scales_is_found_before_sagemaker_refuses_it(
    tmp_path: Path, aws: str
) -> None:
    sagemaker, scaling = (
        boto3.client(each, region_name="us-east-1") for each in ("sagemaker", "application-autoscaling")
    )
    scaling.describe_scalable_targets(ServiceNamespace="sagemaker")  # moto loads a service with its first request
    role = "arn:aws:iam::123456789012:role/speech"
    sagemaker.create_model(ModelName="scaled", ExecutionRoleArn=role, PrimaryContainer={"Image": "bloom"})
    variant = {"VariantName": "AllTraffic", "ModelName": "scaled", "InstanceType": "ml.m5.xlarge"}
    variants = [{**variant, "InitialInstanceCount": 1, "InitialVariantWeight": 1}]
    sagemaker.create_endpoint_config(EndpointConfigName="scaled", ProductionVariants=variants)
    sagemaker.create_endpoint(EndpointName="extended-dlc-bloom", EndpointConfigName="scaled")
    assert_ok(account.scaled_type(target(tmp_path, settings(instance_type="ml.g5.xlarge"))), "no endpoint that scales")
    scaling.register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/extended-dlc-bloom/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=2,
    )
    assert_ok(account.scaled_type(target(tmp_path, settings(instance_type="ml.m5.xlarge"))), "no endpoint that scales")
    assert_problem(
        account.scaled_type(target(tmp_path, settings(instance_type="ml.g5.xlarge"))),
        "extended-dlc-bloom scales on ml.m5.xlarge and would go over to ml.g5.xlarge",
        "deploy without 'scaling' and with the old type, then with the new type",
    )


@pytest.mark.usefixtures("quota_service")
def test_the_quota_for_endpoints_is_found_behind_hundreds_of_others(tmp_path: Path) -> None:
    assert_ok(account.quota(target(tmp_path)), r"^5 of ml\.m5\.xlarge$")


@pytest.mark.usefixtures("quota_service")
def test_a_quota_of_zero_comes_with_the_request_to_type(tmp_path: Path) -> None:
    assert_problem(
        account.quota(target(tmp_path, settings(instance_type="ml.g5.xlarge"))),
        r"^'ml\.g5\.xlarge for endpoint usage' is 0 in us-east-1 and 1 are asked for$",
        "^aws service-quotas request-service-quota-increase --service-code sagemaker --quota-code L-ZERO "
        "--desired-value 1 --region us-east-1$",
    )


@pytest.mark.usefixtures("quota_service")
def test_instances_of_all_endpoints_are_counted(tmp_path: Path) -> None:
    wanted = settings(instances=4)
    wanted["endpoints"]["whisper"] = {"model": "whisper", "hosting": {"instances": 2}}
    assert_problem(account.quota(target(tmp_path, wanted)), "is 5 in us-east-1 and 6 are asked", "--desired-value 6")


@pytest.mark.usefixtures("quota_service")
def test_a_quota_that_is_not_listed_is_unknown(tmp_path: Path) -> None:
    wanted = target(tmp_path, settings(instance_type="ml.m5.24xlarge"))
    assert_unknown(account.quota(wanted), r"lists no 'ml\.m5\.24xlarge for endpoint usage'")


@pytest.mark.usefixtures("quota_service")
def test_an_account_that_may_run_no_build_is_told_before_the_copy_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_problem(
        account.codebuild(target(tmp_path, mirrored())),
        "Linux/Small environment' is 0 in us-east-1, .*Cannot have more than 0 builds in queue",
        "^aws service-quotas request-service-quota-increase --service-code codebuild --quota-code L-SMALL "
        "--desired-value 1 --region us-east-1$",
    )
    monkeypatch.setitem(BUILDS[1], "Value", 5.0)
    assert_ok(account.codebuild(target(tmp_path, mirrored())), "^5 builds at a time$")
    for without in (settings(), mirrored(project="ours")):
        assert_ok(account.codebuild(target(tmp_path, without)), "not needed")
