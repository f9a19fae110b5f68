"""`extended-dlc ask` against the embedded AWS: each kind of hosting, the requests that are sent, and failures."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from click.testing import Result

from extended_dlc.rehearsal.speech import tone_wav
from tests.support.embedded import ACCOUNT, REGION, Aws, command
from tests.support.endpoints import component, configuration, endpoint, endpoint_of_components, settled

BUCKET = "asked"


@pytest.fixture(scope="module", autouse=True)
def asked(aws: Aws) -> None:
    """A real-time and an asynchronous endpoint with the same small container."""
    endpoint(aws, "asked-now", GREETING="hi")
    aws.client("s3").create_bucket(Bucket=BUCKET)
    output = {"S3OutputPath": f"s3://{BUCKET}/asked-later/output", "S3FailurePath": f"s3://{BUCKET}/asked-later/failed"}
    endpoint(aws, "asked-later", GREETING="hi", AsyncInferenceConfig={"OutputConfig": output})


def ask(aws: Aws, *arguments: str, given: bytes | None = None, **more: str | None) -> Result:
    return command(aws, "ask", *arguments, given=given, **{"EXTENDED_DLC_ASK_SECONDS": "0.2", **more})


def answered(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_in_a_projects_folder_its_region_needs_no_words(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README of a new project says `extended-dlc ask NAME TEXT`; an environment that names a region wins."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cdk.json").write_text(json.dumps({"context": {"settings": "settings.json"}}))
    (tmp_path / "settings.json").write_text(json.dumps({"region": REGION}))
    without: dict[str, str | None] = {"AWS_REGION": None, "AWS_DEFAULT_REGION": None}
    assert answered(ask(aws, "asked-now", "Hello", **without))
    elsewhere = ask(aws, "asked-now", "Hello", **{**without, "AWS_DEFAULT_REGION": "eu-west-1"})
    assert "eu-west-1" in elsewhere.output, "the profile's region, which has no such endpoint"
    assert elsewhere.exit_code == 1


# real-time endpoints


def test_a_text_is_asked_as_a_stream_and_its_latency_stands_beside_the_answer(aws: Aws) -> None:
    done = ask(aws, "asked-now", "Hello")
    size = len(json.dumps({"inputs": "Hello"}))
    assert answered(done) == f"hi application/json {size}\n"
    assert re.fullmatch(r"whole \d+\.\d\d s\n", done.stderr)


def test_a_stream_of_events_is_printed_as_text_and_timed_from_its_first_part(aws: Aws) -> None:
    done = ask(aws, "asked-now", "in events")  # the container then responds with three events, 0.2 s apart
    assert answered(done) == "eins zwei drei\n"
    seconds = re.fullmatch(r"first token (\d+\.\d\d) s, whole (\d+\.\d\d) s\n", done.stderr)
    assert seconds is not None, done.stderr
    assert float(seconds[2]) - float(seconds[1]) >= 0.35


def test_a_text_that_is_sent_as_it_is_is_not_asked_as_a_stream_of_events(aws: Aws) -> None:
    given = b"stream"  # the container then responds with three parts, none of which is an event
    done = ask(aws, "asked-now", "-", "--content-type", "text/plain", "--json", given=given)
    assert json.loads(answered(done))["answer"] == "one two three"


def test_a_file_is_sent_as_what_it_is_with_its_parameters_beside_it(aws: Aws, tmp_path: Path) -> None:
    sound = tmp_path / "speech.wav"
    sound.write_bytes(tone_wav(seconds=0.1))
    body = sound.read_bytes()
    assert answered(ask(aws, "asked-now", str(sound), "-p", "language=de")) == f"hi audio/wav {len(body)}\n"
    assert answered(ask(aws, "asked-now", "-", given=body)) == f"hi audio/wav {len(body)}\n"
    assert answered(ask(aws, "asked-now", "--sample")).startswith("hi audio/wav 64044")
    request = tmp_path / "request.json"
    request.write_text('{"inputs": ["a", "b"]}')
    assert answered(ask(aws, "asked-now", str(request))) == "hi application/json 22\n"
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "stream": True}
    answer = answered(ask(aws, "asked-now", "Hi", "--chat", "-p", "max_tokens=5"))
    assert answer == f"hi application/json {len(json.dumps(chat))}\n"


def test_json_has_answer_status_and_seconds(aws: Aws, tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    done = ask(aws, "asked-now", "Hello", "--json", "--variant", "AllTraffic", "--output", str(file))
    result = json.loads(answered(done))
    seconds = result.pop("seconds")
    assert 0 < seconds["whole"] < 10
    assert (seconds["first"], seconds["waited"], done.stderr) == (None, 0, "")
    assert result == {
        "endpoint": "asked-now",
        "status": "answered",
        "answer": file.read_text(),
        "content_type": "text/plain",
        "variant": "AllTraffic",
        "file": str(file),
    }


def test_where_vllm_answers_a_text_is_a_chat_of_openais(aws: Aws) -> None:
    endpoint(aws, "asked-vllm", GREETING="hi", SM_VLLM_MODEL="acme/tiny")
    chat = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    assert answered(ask(aws, "asked-vllm", "Hi")) == f"hi application/json {len(json.dumps(chat))}\n"
    plain = {"prompt": "Hi", "stream": True}
    assert answered(ask(aws, "asked-vllm", "Hi", "--no-chat")) == f"hi application/json {len(json.dumps(plain))}\n"


def test_a_serverless_endpoint_takes_four_megabytes_and_is_sent_no_more(aws: Aws, tmp_path: Path) -> None:
    config = configuration(aws, "asked-small", GREETING="hi")
    serverless = {"MemorySizeInMB": 2048, "MaxConcurrency": 1}
    variant = {"VariantName": "AllTraffic", "ModelName": config, "ServerlessConfig": serverless}
    aws.client("sagemaker").create_endpoint_config(EndpointConfigName="asked-less", ProductionVariants=[variant])
    aws.client("sagemaker").create_endpoint(EndpointName="asked-less", EndpointConfigName="asked-less")
    settled(aws, "asked-less")
    assert answered(ask(aws, "asked-less", "Hello")).startswith("hi application/json")
    large = tmp_path / "large.wav"
    large.write_bytes(tone_wav(seconds=0.1) + bytes(4 * 1024**2))
    done = ask(aws, "asked-less", str(large))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the request has 4.0 MB and a serverless endpoint takes 4.0 MB: make it smaller" in done.stderr
    assert answered(ask(aws, "asked-now", str(large))).startswith("hi audio/wav")


# asynchronous endpoints


def test_an_asynchronous_endpoint_is_asked_for_no_stream(aws: Aws) -> None:
    """SageMaker wants the length of its responses, and a server that is asked for a stream gives none."""
    assert answered(ask(aws, "asked-later", "in events")) == "hi application/json 23\n"


def test_an_asynchronous_request_is_waited_for_and_a_large_one_is_uploaded(aws: Aws, tmp_path: Path) -> None:
    done = ask(aws, "asked-later", "Hello", "--json")
    result = json.loads(answered(done))
    assert result["answer"] == f"hi application/json {len(json.dumps({'inputs': 'Hello'}))}"
    assert result["location"].startswith(f"s3://{BUCKET}/asked-later/output/")
    sound = tmp_path / "long.wav"
    sound.write_bytes(tone_wav(seconds=5))
    done = ask(aws, "asked-later", str(sound))
    assert answered(done) == f"hi audio/wav {sound.stat().st_size}\n"
    assert "uploading 0.2 MB to s3://asked/asked-later/input/ask-" in done.stderr
    keys = [each["Key"] for each in aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert len([each for each in keys if each.startswith("asked-later/input/ask-")]) == 1


def test_the_failure_of_an_asynchronous_request_is_told(aws: Aws) -> None:
    done = ask(aws, "asked-later", "-", "--content-type", "text/plain", given=b"error 400")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the request failed: ModelError: Received client error (400)" in done.stderr


def test_an_answer_that_is_late_is_left_with_the_place_where_it_comes(aws: Aws) -> None:
    done = ask(aws, "asked-later", "-", "--content-type", "text/plain", "--timeout", "1", given=b"pause 1.9")
    assert done.exit_code == 1
    assert re.search(r"(there is no answer after 1 s: it comes to s3://asked/|the request failed: )", done.stderr)


# inference components


def test_components_are_asked_by_name_and_a_copy_that_sleeps_is_waited_for(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint_of_components(aws, "asked-shared")
    none = ask(aws, "asked-shared", "Hello")
    assert "'asked-shared' has neither a model nor a component yet" in none.stderr
    copy = {"on": "asked-shared", "model": "asked-now"}
    component(aws, "asked-one", **copy)
    assert answered(ask(aws, "asked-shared", "Hello")).startswith("hi"), "the only one needs no name"
    component(aws, "asked-two", **copy)
    several = ask(aws, "asked-shared", "Hello")
    assert "has several components: say which with --component: 'asked-one', 'asked-two'" in several.stderr
    wrong = ask(aws, "asked-shared", "Hello", "--component", "asked-three")
    assert "'--component' ('asked-three') is none of 'asked-shared': it has 'asked-one', 'asked-two'" in wrong.stderr
    assert {each.exit_code for each in (none, several, wrong)} == {1}

    def set_copies(copies: int) -> None:
        aws.client("sagemaker").update_inference_component_runtime_config(
            InferenceComponentName="asked-two", DesiredRuntimeConfig={"CopyCount": copies}
        )

    set_copies(0)
    asleep = ask(aws, "asked-shared", "Hello", "--component", "asked-two", "--timeout", "1")
    assert "there was no copy to answer within 1 s (Inference Component has no capacity" in asleep.stderr
    sleep = time.sleep

    def wakes(seconds: float) -> None:
        """The command waits between two requests: the first one has found no copy."""
        monkeypatch.setattr(time, "sleep", sleep)
        set_copies(1)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", wakes)
    done = ask(aws, "asked-shared", "Hello", "--component", "asked-two")
    assert answered(done).startswith("hi application/json")
    assert done.stderr.startswith("waiting for a copy of asked-two to wake up (")
    assert "of waiting for a copy" in done.stderr


# failures


def test_an_absent_endpoint_comes_with_the_names_that_are_near(aws: Aws) -> None:
    done = ask(aws, "asked-nov", "Hello")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: there is no endpoint 'asked-nov' in {REGION}: did you mean 'asked-now'")
    result = json.loads(ask(aws, "asked-nov", "Hello", "--json").stdout)
    assert (result["status"], result["error"]) == ("failed", f"there is no endpoint 'asked-nov' in {REGION}")


def test_an_endpoint_that_failed_says_so_with_its_reason(aws: Aws) -> None:
    endpoint(aws, "asked-crash", BEHAVIOUR="crash")
    done = ask(aws, "asked-crash", "Hello")
    assert done.exit_code == 1
    assert "the endpoint 'asked-crash' is Failed and answers nothing: " in done.stderr
    assert "did not pass the ping" in done.stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"error 400", "the model's server refuses the request (400): on request"),
        (
            b"error 500",
            "the model's server has failed (500): on request: aws logs tail /aws/sagemaker/",
        ),
    ],
)
def test_the_servers_own_words_are_told(aws: Aws, body: bytes, words: str) -> None:
    done = ask(aws, "asked-now", "-", "--content-type", "text/plain", given=body)
    assert (done.exit_code, done.stdout) == (1, "")
    assert words in done.stderr


def test_a_variant_that_is_none_is_refused_with_those_that_are(aws: Aws) -> None:
    done = ask(aws, "asked-now", "Hello", "--variant", "blue")
    assert "'--variant' ('blue') is none of 'asked-now': it has 'AllTraffic'" in done.stderr


def test_who_may_not_look_asks_all_the_same_and_who_may_not_ask_is_told_the_right(aws: Aws) -> None:
    iam, name = aws.client("iam"), "asks"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    keys = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/asked-now"

    def allow(*actions: str) -> None:
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": arn}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document)

    allow("sagemaker:InvokeEndpointWithResponseStream")
    done = ask(aws, "asked-now", "Hello", **keys)
    assert answered(done).startswith("hi application/json")
    assert "not looked at how it is hosted" in done.stderr
    allow("sagemaker:DescribeEndpoint")
    refused = ask(aws, "asked-now", "Hello", **keys)
    assert refused.exit_code == 1
    assert f"the credentials lack the permission sagemaker:InvokeEndpointWithResponseStream on {arn}" in refused.stderr
    assert "grant_invoke" in refused.stderr


def test_without_credentials_nothing_is_asked(aws: Aws) -> None:
    done = ask(aws, "asked-now", "Hello", AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: no AWS credentials: run 'aws configure' or 'aws sso login', or name a profile with --profile\n",
    )
