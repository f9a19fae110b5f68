"""The Hub's token out of Secrets Manager."""

from __future__ import annotations

import http.server
import json
import shutil
import threading

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")
pytest.importorskip("boto3", reason="pip install boto3, which the Deep Learning Containers have")

from extended_dlc_server import errors, settings
from extended_dlc_server.machine import secret

ARN = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:hub-token-AbCdEf"


class Secrets(http.server.ThreadingHTTPServer):
    """An endpoint with AWS's GetSecretValue, for one secret."""

    def __init__(self, answer, status=200):
        self.answer, self.status, self.asked = answer, status, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self):
        return {
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://127.0.0.1:{self.server_port}",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "key",
            "AWS_MAX_ATTEMPTS": "1",
        }


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.headers["x-amz-target"], asked["SecretId"], self.headers["authorization"]))
        body = json.dumps(self.server.answer).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def secrets(monkeypatch):
    made = []

    def make(answer, status=200):
        made.append(Secrets(answer, status))
        for name, value in made[-1].environment.items():
            monkeypatch.setenv(name, value)
        return made[-1]

    yield make
    for server in made:
        server.shutdown()


@pytest.mark.parametrize("text", ["hf_abc", " hf_abc\n", '{"HF_TOKEN": "hf_abc"}', '{"other": "x", "token": "hf_abc"}'])
def test_the_secret_is_the_token_or_has_it_as_a_member(secrets, text):
    server = secrets({"SecretString": text})
    assert secret.read_token(ARN) == "hf_abc"
    ((target, asked, authorization),) = server.asked
    assert (target, asked) == ("secretsmanager.GetSecretValue", ARN)
    assert "/eu-west-1/secretsmanager/" in authorization


@pytest.mark.parametrize(
    "answer", [{}, {"SecretString": ""}, {"SecretString": '{"password": "hf_x"}'}, {"SecretString": "{hf"}]
)
def test_a_secret_without_a_token_is_told_and_not_shown(secrets, answer):
    secrets(answer)
    with pytest.raises(errors.StartError, match="holds no token") as raised:
        secret.read_token(ARN)
    assert "hf_" not in str(raised.value)


def test_a_secret_that_may_not_be_read_names_the_permission(secrets):
    secrets({"__type": "AccessDeniedException", "Message": "no"}, 400)
    with pytest.raises(errors.StartError, match="secretsmanager:GetSecretValue"):
        secret.read_token(ARN)


def test_without_boto3_the_start_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(errors.StartError, match="no boto3"):
        secret.read_token(ARN)


def test_a_token_in_place_of_the_arn_is_refused_and_not_shown():
    with pytest.raises(errors.StartError, match="must be the ARN of a secret") as raised:
        settings.read_settings({"HF_TOKEN_SECRET_ARN": "hf_verysecret"})
    assert "hf_verysecret" not in str(raised.value)


def test_the_token_opens_a_private_model_and_is_not_logged(start_server, models, tmp_path, secrets):
    werkzeug = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    from extended_dlc.rehearsal.hub import TOKEN, Hub

    shutil.copytree(models / "bert-classifier", tmp_path / "tiny" / "bert")
    (tmp_path / "tiny" / "bert" / ".private").touch()
    hub = werkzeug.make_server("127.0.0.1", 0, Hub(tmp_path, log=lambda line: None), threaded=True)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    served = secrets({"SecretString": TOKEN})
    try:
        server = start_server(
            None,
            HF_MODEL_ID="tiny/bert",
            HF_TOKEN_SECRET_ARN=ARN,
            HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}",
            **served.environment,
        ).wait_until_ready()
        assert server.ask({"inputs": "fine"}).status == 200
    finally:
        hub.shutdown()
    assert len(served.asked) == 1
    assert TOKEN not in server.log
    assert server.stop() == 0
