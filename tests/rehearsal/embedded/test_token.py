"""`extended-dlc token` against the embedded AWS: its output reaches the endpoint, and its refusals."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
import pytest
from click.testing import Result

from tests.support.embedded import Answer, Aws, command
from tests.support.endpoints import component, endpoint, endpoint_of_components


@pytest.fixture(scope="module", autouse=True)
def spoken(aws: Aws) -> None:
    endpoint(aws, "spoken-to", GREETING="hi")


def run(aws: Aws, *arguments: str, **environment: str | None) -> Result:
    return command(aws, "token", *arguments, **environment)


def ask(aws: Aws, base_url: str, token: str) -> Answer:
    path = urlsplit(base_url).path + "/chat/completions"
    return aws.request("POST", path, b"{}", {"Authorization": f"Bearer {token}"})


def test_what_it_prints_asks_the_endpoint(aws: Aws) -> None:
    done = run(aws, "spoken-to")
    assert (done.exit_code, done.stderr) == (0, "")
    url, token = done.stdout.splitlines()
    assert url == f"{aws.url}/endpoints/spoken-to/openai/v1"
    answer = ask(aws, url, token)
    assert (answer.status, answer.body[:2]) == (200, b"hi")


def test_as_json_it_says_when_the_token_ends(aws: Aws) -> None:
    answer = json.loads(run(aws, "spoken-to", "--json", "--expires", "5").stdout)
    assert ask(aws, answer["base_url"], answer["token"]).status == 200
    left = datetime.fromisoformat(answer["expires_at"]) - datetime.now(timezone.utc)
    assert timedelta(minutes=4) < left <= timedelta(minutes=5)


def test_a_shell_evaluates_it_into_the_variables_of_openais_clients(aws: Aws) -> None:
    script = run(aws, "spoken-to", "--export").stdout + 'echo "$OPENAI_BASE_URL"; echo "$OPENAI_API_KEY"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    url, token = done.stdout.splitlines()
    assert ask(aws, url, token).status == 200


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "runtime.sagemaker.eu-west-1.amazonaws.com"),
        ("cn-north-1", "runtime.sagemaker.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_the_address_is_that_of_the_regions_runtime(aws: Aws, region: str, host: str) -> None:
    client = boto3.client(
        "sagemaker",
        endpoint_url=aws.url,
        region_name=region,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    role = "arn:aws:iam::123456789012:role/execution"
    client.create_model(ModelName="far", ExecutionRoleArn=role, PrimaryContainer={"Image": "registry.invalid/x:1"})
    variant = {"VariantName": "All", "ModelName": "far", "InstanceType": "ml.m5.xlarge", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName="far", ProductionVariants=[variant])
    client.create_endpoint(EndpointName="far", EndpointConfigName="far")
    # only the control plane is the embedded one
    places = {"AWS_ENDPOINT_URL": None, "AWS_ENDPOINT_URL_SAGEMAKER": aws.url}
    url, token = run(aws, "far", "--region", region, **places).stdout.splitlines()
    assert url == f"https://{host}/endpoints/far/openai/v1"
    assert f"/{region}/sagemaker/aws4_request" in unquote(base64.b64decode(token.rpartition("-")[2]).decode())


def test_a_component_has_an_address_of_its_own_below_its_endpoint(aws: Aws) -> None:
    endpoint_of_components(aws, "told-shared")
    component(aws, "speaker", on="told-shared", model="spoken-to")
    done = run(aws, "told-shared", "--component", "speaker")
    url, token = done.stdout.splitlines()
    assert url.endswith("/endpoints/told-shared/inference-components/speaker/openai/v1")
    assert ask(aws, url, token).status == 200
    wrong = run(aws, "spoken-to", "--component", "speaker")
    assert "the component 'speaker' is one of 'told-shared': pass that endpoint" in wrong.stderr
    absent = run(aws, "told-shared", "--component", "nobody")
    assert "Could not find inference component" in absent.stderr
    unsaid = run(aws, "told-shared")
    assert "'told-shared' serves components, each at an address of its own (speaker)" in unsaid.stderr
    assert "extended-dlc token told-shared --component speaker" in unsaid.stderr
    for each in (wrong, absent, unsaid):
        assert (each.exit_code, each.stdout) == (1, "")


def test_an_endpoint_that_does_not_serve_yet_gets_a_token_and_a_word(aws: Aws) -> None:
    endpoint(aws, "spoken-crash", BEHAVIOUR="crash")
    done = run(aws, "spoken-crash")
    assert done.stderr == "the endpoint is Failed: it answers when it is InService\n"
    assert len(done.stdout.splitlines()) == 2


NO_KEYS = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
REFUSED: dict[str, tuple[list[str], dict[str, str | None], str]] = {
    "unknown endpoint": (["absent"], {}, "aws sagemaker list-endpoints --region us-east-1 shows those that are there"),
    "no name": (["a/b"], {}, "ENDPOINT ('a/b')"),
    "no component": (["spoken-to", "--component", "a b"], {}, "--component ('a b')"),
    "no credentials": (["spoken-to"], NO_KEYS, "no AWS credentials: run 'aws configure' or 'aws sso login'"),
    "no profile": (["spoken-to", "--profile", "nope"], {}, "The config profile (nope) could not be found"),
    "no region": (["spoken-to"], {"AWS_REGION": None, "AWS_DEFAULT_REGION": None}, "no region: pass --region"),
    "unknown region": (["spoken-to", "--region", "mars"], {}, "--region takes a name as us-east-1"),
    "nobody there": (["spoken-to"], {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "SageMaker cannot be asked"),
    "too long": (["spoken-to", "--expires", "721"], {}, "721 is not in the range 1<=x<=720"),
    "no time": (["spoken-to", "--expires", "0"], {}, "0 is not in the range 1<=x<=720"),
    "two forms": (["spoken-to", "--json", "--export"], {}, "leave one out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_gets_no_token_is_told_the_way_out(
    aws: Aws, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, environment, words = REFUSED[case]
    done = run(aws, *arguments, **environment)
    assert done.exit_code != 0
    if "--json" in arguments:
        assert words in json.loads(done.stdout)["error"]
    else:
        assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_asynchronous_endpoint_gets_none(aws: Aws) -> None:
    aws.client("s3").create_bucket(Bucket="told-later")
    config: dict[str, Any] = {"OutputConfig": {"S3OutputPath": "s3://told-later/out"}}
    endpoint(aws, "spoken-later", AsyncInferenceConfig=config)
    done = run(aws, "spoken-later")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is asynchronous, and no OpenAI client can ask it" in done.stderr


def test_the_token_goes_nowhere_but_to_standard_output(
    aws: Aws, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.DEBUG):
        done = run(aws, "spoken-to", HOME=str(tmp_path))
    _, token = done.stdout.splitlines()
    assert "api-key" not in done.stderr
    assert token not in caplog.text
    assert list(tmp_path.rglob("*")) == []
