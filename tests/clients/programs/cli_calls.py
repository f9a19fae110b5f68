"""The AWS CLI: version 1 from PyPI, and version 2 where the machine has one (Debian's package `awscli`)."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from calls import INVOKE, ROUTE, SAID, Asked, Calls, check, main, tone

SECOND = Path("/usr/bin/aws")
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}


def program(asked: Asked) -> None:
    """Call both versions."""
    first = Path(sys.executable).with_name("aws")
    _ask(asked, Calls("AWS CLI 1"), first, ["--body", "fileb://BODY"])
    second = Calls("AWS CLI 2")
    if not SECOND.exists() or "aws-cli/2" not in subprocess.check_output([SECOND, "--version"], text=True):
        print("the AWS CLI 2 is not asked: it is not on this machine (`apt-get install awscli`)")
        return
    _ask(asked, second, SECOND, ["--body", "fileb://BODY"])
    raw = ["--cli-binary-format", "raw-in-base64-out", "--body", json.dumps(CHAT)]
    second.try_it("`invoke-endpoint --cli-binary-format raw-in-base64-out`", INVOKE, _chat, asked, SECOND, raw)


def _ask(asked: Asked, calls: Calls, program: Path, body: list[str]) -> None:
    calls.try_it("`invoke-endpoint --body fileb://…` of a chat", INVOKE, _chat, asked, program, body)
    calls.try_it("`invoke-endpoint --body fileb://….wav`, no content type", INVOKE, _sound, asked, program, body)
    calls.try_it("`invoke-endpoint --custom-attributes route=…`", ROUTE, _route, asked, program, body)
    calls.try_it("`sagemaker describe-endpoint`, `wait endpoint-in-service`", INVOKE, _describe, asked, program)


def _chat(asked: Asked, program: Path, body: list[str]) -> None:
    made = _invoke(asked, program, "chat", json.dumps(CHAT).encode(), [*body, "--content-type", "application/json"])
    check(made["choices"][0]["message"]["content"] == SAID, made)


def _sound(asked: Asked, program: Path, body: list[str]) -> None:
    made = _invoke(asked, program, "whisper", tone(), body)
    check("text" in made, made)


def _route(asked: Asked, program: Path, body: list[str]) -> None:
    more = ["--content-type", "application/json", "--custom-attributes", "route=/v1/embeddings"]
    made = _invoke(asked, program, "embed", b'{"input": "hello"}', [*body, *more])
    check(len(made["data"]) == 1, made)


def _describe(asked: Asked, program: Path) -> None:
    given = ["--endpoint-name", "chat"]
    _run(asked, program, "sagemaker", "wait", "endpoint-in-service", *given)
    made = json.loads(_run(asked, program, "sagemaker", "describe-endpoint", *given))
    check(made["EndpointStatus"] == "InService", made)


def _invoke(asked: Asked, program: Path, endpoint: str, body: bytes, options: list[str]) -> dict[str, list[dict]]:
    with tempfile.TemporaryDirectory() as folder:
        file, answer = Path(folder, "body"), Path(folder, "answer")
        file.write_bytes(body)
        given = [option.replace("BODY", str(file)) for option in options]
        _run(asked, program, "sagemaker-runtime", "invoke-endpoint", "--endpoint-name", endpoint, *given, str(answer))
        found: dict[str, list[dict]] = json.loads(answer.read_bytes())
        return found


def _run(asked: Asked, program: Path, *arguments: str) -> str:
    # Debian's release is too old for AWS_ENDPOINT_URL
    command = [program, "--endpoint-url", asked.aws, "--region", asked.region, *arguments]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(made.stderr)
    return made.stdout


if __name__ == "__main__":
    main(program)
