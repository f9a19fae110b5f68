"""`extended-dlc smoke`: the real CDK CLI deploys the real app to the embedded AWS, and it is always destroyed.

The image is an existing one, so that nothing is built, and its containers are processes of a stub engine.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from extended_dlc.cli import main
from extended_dlc.smoke import NAME, Budget
from extended_dlc.smoke.claims import CLAIMS, Seen, judge
from extended_dlc.smoke.confirmation import without_account
from tests.support.embedded import ACCOUNT, REGION, Aws, Image, cdk_environment, start, stub_engine

ROOT = Path(__file__).parents[2]
CLI = ROOT / "node_modules" / ".bin" / "cdk"

needs_cli = pytest.mark.skipif(not CLI.exists(), reason="the CDK CLI is not installed: run `make setup`")

# responds as the project's server does, with other behaviours by environment variables
SERVER = """
import http.server, json, os, time
started = time.monotonic()
behaviour = os.environ.get("BEHAVIOUR", "")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        loading = behaviour == "slow" and time.monotonic() - started < 5
        self.answer(503 if loading else 200, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if behaviour == "broken":
            self.answer(500, {"error": "cannot generate"})
        elif os.environ["HF_MODEL_ID"].startswith("bigscience/"):
            self.answer(200, [{"generated_text": json.loads(body)["inputs"] + " BLOOM"}])
        else:
            self.answer(200, {"text": "beep" if body.startswith(b"RIFF") else None})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


@dataclass
class Account:
    """A bootstrapped embedded AWS with an image in it."""

    aws: Aws
    folder: Path
    app: Path
    bootstrapped: dict[str, list[str]]

    def begin(self, *options: str, behaviour: str = "", app: Path | None = None) -> subprocess.Popen[str]:
        """Start a smoke test whose endpoints have this behaviour."""
        environment = {"BEHAVIOUR": behaviour} if behaviour else {}
        settings = {
            "image": {"kind": "ecr", "repository": "published", "tag": "v1"},
            "endpoints": {key: {"environment": environment} for key in ("bloom", "whisper")},
        }
        (self.folder / "settings.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "extended_dlc", "smoke", REGION, f"--app={app or self.app}"]
        files = [f"--settings={self.folder / 'settings.json'}", f"--json={self.folder / 'report.json'}"]
        return subprocess.Popen(
            [*command, *files, *options],
            # the caller's own variables must not reach the app
            env={**cdk_environment(self.aws, self.folder), "EXTENDED_DLC_MODEL": "whisper", "EXTENDED_DLC_TYPO": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def smoke(self, *options: str, behaviour: str = "", app: Path | None = None) -> tuple[int, str]:
        """Run a smoke test; returns its exit status and output."""
        process = self.begin(*options, behaviour=behaviour, app=app)
        output, _ = process.communicate(timeout=180)
        return process.returncode, output

    @property
    def report(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return content

    def steps(self) -> dict[str, bool]:
        return {step["name"]: step["ok"] for step in self.report["steps"]}

    def left(self) -> dict[str, list[str]]:
        """The resources beyond the bootstrap's; log groups do not count."""
        left = self.aws.left()
        return {
            kind: [name for name in names if name not in self.bootstrapped[kind]]
            for kind, names in left.items()
            if kind != "log-groups" and set(names) - set(self.bootstrapped[kind])
        }


def small_app(folder: Path) -> Path:
    """The checkout's app through links, so that the test's files stay in this folder."""
    folder.mkdir()
    for name in ("app.py", "cdk.json", "package.json", "package-lock.json", "node_modules"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("smoke")
    stub = folder / "engine"
    stub.mkdir()
    engine = stub_engine(stub)
    (stub / "server.py").write_text(SERVER)
    aws = start(folder / "state", stub, f"--engine={engine}")
    try:
        aws.client("ecr").create_repository(repositoryName="published")
        Image("smoke").push(aws, "published", "v1")
        done = subprocess.run(
            [str(CLI), "bootstrap", f"aws://{ACCOUNT}/{REGION}", "--no-notices"],
            cwd=folder,
            env=cdk_environment(aws, folder),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield Account(aws, folder, small_app(folder / "app"), aws.left())
    finally:
        aws.stop()


@needs_cli
def test_both_models_answer_and_nothing_is_left(account: Account) -> None:
    status, output = account.smoke("--yes", "--hourly-price=0.5", "--max-cost=2")
    assert status == 0, output
    assert f"account {ACCOUNT}, {REGION}: 2 ml.m5.xlarge" in output
    assert "at most about USD 2.00, at USD 0.5 an hour each" in output
    assert account.left() == {}
    assert list(account.steps().items()) == [
        ("extended-dlc doctor", True),
        ("no earlier test is there", True),
        ("cdk deploy", True),
        ("BLOOM generates text", True),
        ("Whisper transcribes a WAV file", True),
        ("cdk destroy", True),
        ("nothing is left", True),
    ]
    report = account.report
    assert report["ok"] is True
    proofs = {step["name"]: step["proof"] for step in report["steps"]}
    assert "'Hello, my name is BLOOM'" in proofs["BLOOM generates text"]
    assert "'beep'" in proofs["Whisper transcribes a WAV file"]
    assert re.search(r"none of the [1-9]\d* endpoints, configs, models", proofs["nothing is left"])
    assert (
        0
        < report["estimated_cost_usd"]
        == pytest.approx(report["instance_seconds_at_most"] * 0.5 / 3600, rel=0.2, abs=1e-4)
    )
    assert report["max_minutes"] == 110


@needs_cli
def test_a_model_that_does_not_answer_fails_and_is_destroyed(account: Account) -> None:
    status, output = account.smoke("--yes", "--max-minutes=5", behaviour="broken")
    assert status == 1, output
    assert account.left() == {}
    steps = account.steps()
    assert steps["cdk deploy"]
    assert not steps["BLOOM generates text"]
    assert "Whisper transcribes a WAV file" not in steps
    assert steps["cdk destroy"]
    assert steps["nothing is left"]
    assert account.report["ok"] is False
    assert "cannot generate" in output
    assert account.report["estimated_cost_usd"] is None


def wait_until_it_is_created(account: Account, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not account.left().get("endpoints"):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@needs_cli
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.thorough),
        pytest.param(signal.SIGHUP, marks=pytest.mark.thorough),
    ],
)
def test_a_test_that_is_stopped_while_it_deploys_destroys(account: Account, number: signal.Signals) -> None:
    process = account.begin("--yes", "--max-minutes=5", behaviour="slow")
    wait_until_it_is_created(account, process)
    process.send_signal(number)
    time.sleep(1)
    process.send_signal(number)  # an impatient user's second signal: it must not stop the destruction
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert account.left() == {}
    assert "stopped by the user" in output
    assert "stopping that would leave instances that cost" in output
    steps = account.steps()
    assert not steps["cdk deploy"]
    assert steps["nothing is left"]


@needs_cli
def test_at_the_time_limit_it_destroys(account: Account) -> None:
    begun = time.monotonic()
    status, output = account.smoke("--yes", "--max-minutes=0.1", behaviour="slow")
    assert status == 1, output
    assert account.left() == {}
    assert "the limit of 0.1 minutes is reached" in output
    assert time.monotonic() - begun < 60


@needs_cli
@pytest.mark.thorough
def test_without_a_reader_it_goes_on_to_the_end(account: Account) -> None:
    process = account.begin("--yes", "--max-minutes=5")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()  # like `… | head -1`
    process.wait(120)
    assert account.left() == {}
    assert account.steps()["nothing is left"]


@needs_cli
@pytest.mark.thorough
def test_where_the_cdk_cannot_destroy_cloudformation_does(account: Account, tmp_path: Path) -> None:
    app = small_app(tmp_path / "app")
    (app / "node_modules").unlink()
    program = app / "node_modules" / ".bin" / "cdk"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\n[ "$1" != destroy ] || exit 9\nexec "{CLI}" "$@"\n')
    program.chmod(0o755)
    status, output = account.smoke("--yes", "--max-minutes=5", app=app)
    assert account.left() == {}
    assert status == 1, output
    steps = account.steps()
    assert not steps["cdk destroy"]
    assert steps["delete the stack by CloudFormation"]
    assert steps["nothing is left"]


@needs_cli
def test_a_stack_of_another_test_is_left_alone_until_it_is_asked_for(account: Account) -> None:
    template = {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}
    client = account.aws.client("cloudformation")
    client.create_stack(StackName=NAME, TemplateBody=json.dumps(template))
    status, output = account.smoke("--yes", "--max-minutes=5")
    assert status == 1
    assert f"remove it with: extended-dlc smoke {REGION} --destroy" in output
    assert account.left()["stacks"] == [NAME]
    status, output = account.smoke("--destroy")
    assert status == 0, output
    assert account.left() == {}


@needs_cli
def test_what_is_left_is_said_with_a_status_of_its_own(account: Account) -> None:
    sagemaker = account.aws.client("sagemaker")
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    image = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/published:v1"
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam = account.aws.client("iam")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName="of-another-stack", AssumeRolePolicyDocument=policy)["Role"]["Arn"]
    pull = {"Effect": "Allow", "Action": "ecr:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [pull]})
    iam.put_role_policy(RoleName="of-another-stack", PolicyName="pull", PolicyDocument=policy)
    sagemaker.create_model(ModelName="m", PrimaryContainer={"Image": image}, ExecutionRoleArn=role)
    sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=f"{NAME}-forgotten", EndpointConfigName="c")
    try:
        status, output = account.smoke("--destroy")
        assert status == 3, output
        assert f"SOMETHING IS LEFT IN YOUR ACCOUNT: still there: Endpoint {NAME}-forgotten" in output
        assert f"aws sagemaker list-endpoints --region {REGION} --name-contains {NAME}" in output
    finally:
        sagemaker.delete_endpoint(EndpointName=f"{NAME}-forgotten")
        sagemaker.delete_endpoint_config(EndpointConfigName="c")
        sagemaker.delete_model(ModelName="m")
        iam.delete_role_policy(RoleName="of-another-stack", PolicyName="pull")
        iam.delete_role(RoleName="of-another-stack")


@needs_cli
def test_nothing_is_deployed_without_a_yes_or_with_a_problem(account: Account) -> None:
    status, output = account.smoke("--max-minutes=5")
    assert (status, account.left()) == (1, {})
    assert "Deploy? [y/N]" in output
    parameter = "/cdk-bootstrap/hnb659fds/version"
    ssm = account.aws.client("ssm")
    version = ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    ssm.put_parameter(Name=parameter, Value="3", Type="String", Overwrite=True)
    try:
        status, output = account.smoke("--yes", "--max-minutes=5")
    finally:
        ssm.put_parameter(Name=parameter, Value=version, Type="String", Overwrite=True)
    assert (status, account.left()) == (1, {})
    assert f"→ npx cdk bootstrap aws://{ACCOUNT}/{REGION}" in output
    assert "cdk deploy" not in account.steps()


# ---- confirmations ----


def test_every_line_that_was_never_confirmed_has_its_look_and_every_look_its_line() -> None:
    page = (ROOT / "docs" / "unconfirmed.md").read_text()
    lines = re.findall(r"^- (.*)", page, re.MULTILINE)
    assert [re.match(r"`([a-z-]+)`: ", line)[1] for line in lines] == [claim.id for claim in CLAIMS]  # type: ignore[index]
    readme = (ROOT / "README.md").read_text().partition("## Never confirmed on AWS\n")[2].partition("\n## ")[0]
    assert "(docs/unconfirmed.md)" in readme
    by_hand = {claim.id for claim in CLAIMS if claim.look is None}
    assert by_hand == set(re.findall(r"^- `([a-z-]+)`:(?:(?!^- )[\s\S])*By hand:", page, re.MULTILINE))


@needs_cli
def test_the_report_says_what_is_confirmed_and_where_and_not_whose_account_it_was(account: Account) -> None:
    file = account.folder / "confirmed.json"
    process = account.begin("--yes", "--max-minutes=5", f"--report={file}", behaviour="slow")
    wait_until_it_is_created(account, process)
    for name in ("bloom", "whisper"):  # SageMaker writes these metrics, and the embedded AWS does not
        dimensions = {"EndpointName": f"{NAME}-{name}", "VariantName": "AllTraffic"}
        account.aws.client("cloudwatch").put_metric_data(
            Namespace="/aws/sagemaker/Endpoints",
            MetricData=[
                {
                    "MetricName": "CPUUtilization",
                    "Value": 1.0,
                    "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
                }
            ],
        )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert account.left() == {}
    text = file.read_text()
    assert ACCOUNT not in text
    report = json.loads(text)
    assert report["passed"] is True
    assert report["date"] == datetime.now(timezone.utc).date().isoformat()
    assert report["region"] == REGION
    assert set(report["packages"]) >= {"aws-cdk", "aws-cdk-lib", "boto3", "extended-dlc", "python"}
    assert None not in report["packages"].values()
    assert set(report["confirmed"]) == {"role-logs", "role-metrics", "startup-timeout"}
    assert report["confirmed"]["startup-timeout"].startswith(f"{report['date']}, {REGION}, ")
    assert report["open"]["manifest"] == "the image was not built by this test"
    assert report["open"]["gpu-start"] == "ml.m5.xlarge has no GPU"
    assert set(report["confirmed"]) | set(report["open"]) == {claim.id for claim in CLAIMS}


@needs_cli
@pytest.mark.thorough
def test_a_run_that_fails_confirms_nothing_and_says_so(account: Account) -> None:
    file = account.folder / "failed.json"
    assert account.smoke("--yes", "--max-minutes=5", f"--report={file}", behaviour="broken")[0] == 1
    report = json.loads(file.read_text())
    assert (report["passed"], report["confirmed"]) == (False, {})
    assert report["open"]["role-logs"] == "the endpoints did not both answer"


def test_the_account_is_taken_out_of_everything_however_it_is_written() -> None:
    values = {f"arn:aws:iam::{ACCOUNT}:role/x": [f"models-{ACCOUNT}-us", ("1234-5678-9012", 0.123456789012), None]}
    assert without_account(values, ACCOUNT) == {
        "arn:aws:iam::ACCOUNT:role/x": ["models-ACCOUNT-us", ["ACCOUNT", 0.123456789012], None]
    }
    other = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference"
    assert without_account(other, ACCOUNT) == other
    assert without_account(f"sha256:9{ACCOUNT}", ACCOUNT) == f"sha256:9{ACCOUNT}"


@dataclass
class Answers:
    """A client of AWS with one response for each operation; operations without one are denied."""

    given: dict[str, Any] = field(default_factory=dict)

    def __call__(self, _: str) -> Any:
        return self

    def __getattr__(self, operation: str) -> Any:
        from botocore.exceptions import ClientError

        if operation == "get_paginator":
            return lambda name: type("Pages", (), {"paginate": lambda _, **__: [getattr(self, name)()]})()
        if operation not in self.given:
            denied = {"Error": {"Code": "AccessDeniedException", "Message": f"user/jane of {ACCOUNT} may not"}}
            raise ClientError(denied, operation)  # type: ignore[arg-type]
        return lambda **_: self.given[operation]


def seen(instance_type: str = "ml.m5.xlarge", *, docker: bool = True, **given: Any) -> dict[str, tuple[bool, str]]:
    """The findings of a smoke test that built its image, with these responses of AWS."""
    image = {"SpecifiedImage": f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/repository:tag"}
    described = {"EndpointConfigName": "config", "ProductionVariants": [{"DeployedImages": [image]}]}
    return judge(
        Seen(
            client=Answers({"describe_endpoint": described, **given}),
            stack=NAME,
            endpoints=("a", "b"),
            instance_type=instance_type,
            gpu=instance_type.startswith("ml.g"),
            base="dlc:1",
            docker=docker,
            begun=datetime.now(timezone.utc),
            until=0,
        )
    )


def manifest(kind: str, gigabytes: float = 3) -> dict[str, Any]:
    text = json.dumps({"mediaType": kind, "layers": [{"size": int(gigabytes * 1e9)}]})
    return {"images": [{"imageManifest": text}]}


def copied(seconds: int) -> dict[str, Any]:
    def event(status: str, second: int) -> dict[str, Any]:
        when = datetime(2026, 11, 27, 12, second // 60, second % 60, tzinfo=timezone.utc)
        return {"ResourceType": "Custom::CDKECRDeployment", "ResourceStatus": status, "Timestamp": when}

    return {"StackEvents": [event("CREATE_COMPLETE", seconds), event("CREATE_IN_PROGRESS", 0)]}


@pytest.mark.parametrize(("kind", "confirmed"), [("docker.distribution", True), ("oci.image", False)])
def test_the_manifest_is_confirmed_by_what_ecr_has(kind: str, confirmed: bool) -> None:
    middle = ".v2+json" if confirmed else ".v1+json"
    found = seen(batch_get_image=manifest(f"application/vnd.{kind}.manifest{middle}"))["manifest"]
    assert found == (confirmed, f"ECR has application/vnd.{kind}.manifest{middle}")
    assert seen(docker=False)["manifest"] == (False, "the image was not built by Docker")


@pytest.mark.parametrize(("seconds", "confirmed"), [(60, True), (600, False)])
def test_the_copy_is_confirmed_at_a_rate_that_takes_ten_gigabytes_in_time(seconds: int, confirmed: bool) -> None:
    found = seen(batch_get_image=manifest("x", 3), describe_stack_events=copied(seconds))["image-copy"]
    assert found[0] is confirmed
    assert f"3.0 GB were copied in {seconds} s" in found[1]


@pytest.mark.parametrize(("end", "confirmed"), [("mine", True), ("Mine", False)])
def test_an_endpoint_of_the_account_with_capitals_shows_what_its_arn_has(end: str, confirmed: bool) -> None:
    each = {"EndpointName": "Mine", "EndpointArn": f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{end}"}
    assert seen(list_endpoints={"Endpoints": [each]})["endpoint-arn"][0] is confirmed
    assert "no endpoint" in seen(list_endpoints={"Endpoints": [{**each, "EndpointName": "mine"}]})["endpoint-arn"][1]


def test_a_gpu_is_confirmed_with_its_host_and_by_its_memory_in_use() -> None:
    variant = {"InferenceAmiVersion": "al2023-ami-sagemaker-inference-gpu-4-1"}
    config = {"ProductionVariants": [variant]}
    for memory, confirmed in ((12.5, True), (0.0, False)):
        points = {"Datapoints": [{"Maximum": memory}]}
        found = seen("ml.g5.xlarge", describe_endpoint_config=config, get_metric_statistics=points)
        assert found["gpu-host"][0] is found["gpu-start"][0] is confirmed
    assert not seen(describe_endpoint_config=config, get_metric_statistics=points)["gpu-host"][0]


def test_what_may_not_be_looked_at_stays_open_without_names() -> None:
    found = seen()
    assert found["manifest"] == (False, "batch_get_image is answered with AccessDeniedException")
    assert "jane" not in str(found)


# ---- the cost limit ----


def budget(**given: Any) -> Budget:
    return Budget(
        **{"instance_type": "ml.m5.xlarge", "hourly_price": None, "max_cost": 1.0, "max_minutes": None, **given}
    )


def test_without_a_price_or_a_time_limit_it_says_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"not known here.*--hourly-price USD.*--max-minutes"):
        budget()


def test_a_budget_that_buys_too_little_says_how_much_it_takes() -> None:
    with pytest.raises(ValueError, match=r"'--max-cost' \(1\.00\) is too little .* give --max-cost 2\.50 or more"):
        budget(hourly_price=3.0)
    assert budget(hourly_price=3.0, max_cost=2.50).minutes >= 15


def test_the_lower_of_both_limits_counts_and_the_destruction_is_kept_back() -> None:
    assert budget(hourly_price=0.6).minutes == pytest.approx(40)
    assert budget(hourly_price=0.6, max_minutes=20).minutes == 20
    assert budget(hourly_price=0.01).minutes == 120
    assert budget(max_minutes=300).minutes == 300


def test_what_it_costs_is_told_as_far_as_it_is_known() -> None:
    assert "at most about USD 1.00, at USD 0.6 an hour each" in budget(hourly_price=0.6).description()
    assert "what it costs is not known" in budget(max_minutes=30).description()
    assert budget(max_minutes=30).cost(3600) is None
    assert budget(hourly_price=0.6).cost(3600) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mars"], "'REGION' (mars) is not an AWS region: write it as 'us-east-1'"),
        ([REGION, "--instance-type", "ml.g5"], "'--instance-type' (ml.g5) is not an instance type that SageMaker"),
    ],
)
def test_a_region_or_a_type_that_cannot_be_is_named_before_the_price_is_asked_for(
    arguments: list[str], said: str
) -> None:
    done = CliRunner().invoke(main, ["smoke", *arguments])
    assert done.exit_code == 2
    assert said in done.output
    assert "hourly-price" not in done.output


def test_the_command_needs_a_price_before_it_asks_aws_anything() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "extended_dlc", "smoke", REGION],
        cwd=ROOT,
        env={**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "--hourly-price" in done.stderr
