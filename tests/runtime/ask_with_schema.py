"""Asks a model whose tokenizer has a `response_schema`, with a transformers release that reads it: `make schemas`.

Releases of transformers 5 before 5.15 read the schema from `tokenizer_config.json`; the newest one drops it, and reads
`response_template` instead. The suite's own tests ask the oldest and the newest supported release only.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chain_models import make_chain

ROOT = Path(__file__).parents[2]
RELEASE = "5.12.0"
PACKAGES = (f"transformers=={RELEASE}", "tokenizers==0.22.2", "huggingface_hub==1.5.0")
TEMPLATE = """{%- for m in messages -%}<|{{ m.role }}|>{{ m.content }}{%- endfor -%}
{%- if tools %}<|tools|>{% else %}<|{{ messages[-1].content }}|>{% endif -%}"""
SPECIAL = ["<|tools|>", "<|plain|>", "<|broken|>", "<|user|>"]
CALL = '{"name": "get_weather", "arguments": {"city": "Köln"}}'
CHAINS = [
    ("<|tools|>", "[think]Hm.", "[/think]", "I look.", "[call]", CALL, "[/call]"),
    ("<|plain|>", "[think]So.[/think]", "Hello", " you."),
    ("<|broken|>", "No.", "[call]no JSON[/call]", " more"),
]
SCHEMA = {
    "type": "object",
    "properties": {
        "role": {"const": "assistant"},
        "thinking": {"type": "string", "x-regex": r"\[think\](.*?)\[/think\]"},
        "content": {"type": "string", "x-regex": r"^(?:\[think\].*?\[/think\])?(.*?)(?=\[call\]|</s>|$)"},
        "tool_calls": {
            "type": "array",
            "x-regex-iterator": r"\[call\](.*?)\[/call\]",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"const": "function"},
                    "function": {"type": "object", "x-parser": "json", "additionalProperties": {}},
                },
            },
        },
    },
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


def packages() -> Path:
    """Return the folder with the release, installed once."""
    folder = ROOT / ".cache" / f"transformers-{RELEASE}"
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(unfinished), *PACKAGES]
        subprocess.run(command, check=True)
        unfinished.rename(folder)
    return folder


class Server:
    """The server on the model, with the release."""

    def __init__(self, base: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        path = os.pathsep.join([str(packages()), str(ROOT / "docker" / "inference")])
        environment = {"PYTHONPATH": path, "HOME": str(base), "PATH": "/usr/bin"}
        environment |= {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(self.port)}
        command = [sys.executable, "-m", "extended_dlc_server", "serve"]
        self.log = base / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=base, stdout=log, stderr=subprocess.STDOUT)

    def wait(self, seconds: float = 120) -> None:
        """Wait until the model is loaded."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", "/ping")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit(self.log.read_text())

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def chat(self, content: str, **more: Any) -> tuple[str, str, list[Any]]:
        """Return reasoning, content and calls of an answer, whole or streamed."""
        messages = [{"role": "user", "content": content}]
        status, text = self.request("POST", "/v1/chat/completions", {"messages": messages, "temperature": 0, **more})
        assert status == 200, text
        if more.get("stream"):
            lines = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
            parts = [choice["delta"] for line in lines for choice in line["choices"]]
        else:
            parts = [json.loads(text)["choices"][0]["message"]]
        said = ["".join(part.get(name) or "" for part in parts) for name in ("reasoning_content", "content")]
        calls = [call["function"] for part in parts for call in part.get("tool_calls") or ()]
        return said[0], said[1], [(call["name"], json.loads(call["arguments"])) for call in calls]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_chain(Path(scratch) / "model", CHAINS, TEMPLATE, SPECIAL)
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "response_schema": SCHEMA}))
        server = Server(Path(scratch))
        try:
            server.wait()
            for stream in (False, True):
                called = server.chat("hi", tools=[WEATHER], stream=stream)
                assert called == ("Hm.", "I look.", [("get_weather", {"city": "Köln"})]), called
                assert server.chat("plain", stream=stream) == ("So.", "Hello you.", [])
                reasoning, content, calls = server.chat("broken", stream=stream)
                assert (reasoning, content.removesuffix("</s>"), calls) == ("", "No.[call]no JSON[/call] more", [])
        finally:
            server.process.terminate()
            server.process.wait()
    print(f"transformers {RELEASE} reads response_schema: right, whole and streamed")


if __name__ == "__main__":
    main()
