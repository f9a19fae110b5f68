"""`GET /openapi.json`: the tables that check requests, as OpenAPI; and the pages in the docs that are made of them.

`python tests/runtime/test_openapi.py` writes docs/openapi/*.json and docs/parameters.md.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docker" / "inference"))

from extended_dlc_server.reading.openai_fields import chat_fields, completion_fields  # noqa: E402
from extended_dlc_server.reading.parameter_table import REFUSED, Limits, parameters_of  # noqa: E402
from extended_dlc_server.reading.tasks import KINDS  # noqa: E402
from extended_dlc_server.routes import openapi, routes  # noqa: E402 - as in the image
from extended_dlc_server.routes.openapi import Served, document  # noqa: E402
from extended_dlc_server.routes.openapi import _body as body_of  # noqa: E402

FOLDER, PAGE = ROOT / "docs" / "openapi", ROOT / "docs" / "parameters.md"
LIMITS = Limits(input_tokens=2048, new_tokens=2048, vocabulary=50_000)
"""The limits in docs/: those of a model with 4096 positions. A running server states its model's own."""

WRITERS = ("text-generation", "image-text-to-text", "any-to-any")
SCHEMATHESIS = "schemathesis==4.32.5"
SECONDS = int(os.environ.get("EXTENDED_DLC_SCHEMATHESIS_SECONDS", "10"))
"""Seconds for each of three kinds of servers."""

PHASES = "coverage,fuzzing" if SECONDS >= 60 else "fuzzing"
"""With more time schemathesis also covers the bounds of each field, which takes over a minute for a chat."""


def served(task: str, limits: Limits = LIMITS) -> Served:
    """A model of a task that has all of the task's parameters."""
    return Served(
        task=task,
        kind=KINDS[task],
        parameters=parameters_of(task, limits),
        limits=limits if task in WRITERS else None,
        images_in_chats=task in WRITERS and task != "text-generation",
        embeds=task in ("feature-extraction", "sentence-embeddings"),
        reranks=task == "text-classification",
    )


def document_of(task: str) -> dict[str, Any]:
    return json.loads(json.dumps(document(served(task))))


# the pages


def lines(value: Any, depth: int = 5, indent: str = "") -> str:
    """JSON with a line for each member down to `depth`, so that a changed member is a changed line."""
    if not isinstance(value, dict) or not value or not depth:
        return json.dumps(value, ensure_ascii=False)
    more = f"{indent} "
    members = (f"{more}{json.dumps(name)}: {lines(inner, depth - 1, more)}" for name, inner in value.items())
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def shown(schema: dict[str, Any]) -> str:
    """A schema in words."""
    if "$ref" in schema:
        return f"as `{schema['$ref'].rpartition('/')[2]}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(one, ensure_ascii=False)}`" for one in schema["enum"] if one is not None)
    if "anyOf" in schema:
        options = [shown(one) for one in schema["anyOf"] if one != {"type": "null"}]
        return " or ".join([*options, *(["`null`"] if {"type": "null"} in schema["anyOf"] else [])])
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    match kind:
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum"))
            high = schema.get("maximum", schema.get("exclusiveMaximum"))
            above = "above" if "exclusiveMinimum" in schema else "from"
            below = "below" if "exclusiveMaximum" in schema else "to"
            return f"{'a whole number' if kind == 'integer' else 'a number'} {above} {low:,} {below} {high:,}"
        case "string" if "contentEncoding" in schema or "format" in schema:
            return "a file"
        case "string":
            form = f", {schema['description']}" if schema.get("pattern") else ""
            return f"a text of {schema['minLength']:,} to {schema['maxLength']:,} characters{form}"
        case "array" if "prefixItems" in schema:
            return f"a list of {' and '.join(shown(one) for one in schema['prefixItems'])}"
        case "array":
            many = f"a list of {schema['minItems']:,} to {schema['maxItems']:,}" if "maxItems" in schema else "a list"
            return f"{many}: {shown(schema['items'])}"
        case "object" if schema.get("properties"):
            return "an object of: " + ", ".join(f"`{name}`" for name in schema["properties"])
        case "object":
            return "an object" if "propertyNames" in schema else "an object of the chat template's variables"
    return "any JSON"


def table(properties: dict[str, Any]) -> list[str]:
    rows = ["| `{}` | {} |".format(name, shown(schema).replace("|", "\\|")) for name, schema in properties.items()]
    return ["| name | what it may be |", "|---|---|", *rows, ""]


def pages() -> dict[Path, str]:
    """The generated files of docs/, by their paths."""
    found = {FOLDER / f"{task}.json": lines(document_of(task)) + "\n" for task in sorted(KINDS)}
    text = [
        "# Parameters",
        "",
        "Generated by `make docs` from the server's own documents ([openapi/](openapi), one a task). A running server",
        "has its own under `GET /openapi.json`: with its model's limits, and only the names that its transformers",
        f"release knows. Here a text may have {LIMITS.input_tokens:,} tokens, {LIMITS.new_tokens:,} may be generated,",
        f"and the model knows {LIMITS.vocabulary:,}. `null` is what is not given. What stands nowhere here is refused",
        "by name, often with what to send instead.",
        "",
        "## `parameters` of `POST /invocations`",
        "",
    ]
    same: dict[str, list[str]] = {}
    for task in sorted(KINDS):
        properties = document_of(task)["components"]["schemas"]["Parameters"]["properties"]
        rows = "\n".join(table(properties)) if properties else "It takes none.\n"
        same.setdefault(rows, []).append(task)
    for rows, tasks in same.items():
        text += [f"### {', '.join(tasks)}", "", rows]
    text += ["## Fields of the other routes", ""]
    seen: dict[str, list[str]] = {}
    for task in sorted(KINDS):
        for path, methods in document_of(task)["paths"].items():
            if path == "/invocations" or "post" not in methods:
                continue
            for content, body in methods["post"]["requestBody"]["content"].items():
                bodies = body["schema"].get("anyOf", [body["schema"]])
                for each in bodies:
                    properties = {
                        n: s for n, s in each["properties"].items() if "passed over" not in s.get("description", "")
                    }
                    required = each["required"]
                    rest = {n: s for n, s in properties.items() if n not in required}
                    head = f"Needs {' and '.join(f'`{n}`' for n in required)}, as `{content}`.\n"
                    rows = seen.setdefault("\n".join([head, *table(rest)]), [])
                    if path not in rows:
                        rows.append(path)
    for rows, paths in seen.items():
        text += [f"### {', '.join(f'`POST {path}`' for path in paths)}", "", rows]
    found[PAGE] = "\n".join(text).rstrip() + "\n"
    return found


def test_the_pages_in_the_docs_are_what_the_tables_say() -> None:
    found = pages()
    assert {file.name for file in FOLDER.iterdir()} == {file.name for file in found if file.parent == FOLDER}
    stale = [str(file) for file, text in found.items() if file.read_text() != text]
    assert not stale, "run 'make docs'"


# the document


def test_every_task_has_a_valid_document() -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="comes with moto")
    for task in KINDS:
        validator.validate(document_of(task))


def test_every_route_is_described_or_refuses_everything() -> None:
    assert routes.ROUTES.keys() - openapi.BODIES.keys() == {"/v1/responses"}
    assert openapi.BODIES.keys() <= routes.ROUTES.keys()
    described = {path for task in KINDS for path in document_of(task)["paths"]}
    assert openapi.BODIES.keys() <= described


def rules() -> list[Any]:
    """Each rule of each table, with its path as the test's id."""
    found = []
    for task in sorted(KINDS):
        tables = [parameters_of(task, LIMITS)]
        if task == "text-generation":
            tables += [chat_fields(LIMITS), completion_fields(LIMITS)]
        for each in tables:
            for name, rule in each.items():
                found.append(pytest.param(rule, id=f"{task}-{name}"))
    return found


SOME = [
    *(None, True, False, 0, 1, -1, 2, 3, 3.0, 0.5, 1.5, -0.5, 100, 5000, 10**6, 10**20, "", "a", "text", "a" * 50_000),
    *([], ["a"], [1], [1, 2], [0.5, 0.5], ["a", "b"], [["a"]], [[1], [2]], [[[1], 0.5]], [5, 1.1], [None], {}),
    *({"a": 1}, {"type": "json"}, {"type": "regex", "value": "a"}, {"height": 5}, {"max_new_tokens": 3}, {"1": 5}),
    *({"include_usage": True}, "simple", "mean", "left", "auto", "longest", "word", "none", "sigmoid", "high", "never"),
    *("a {} b", "v2/en_speaker_1", "eng+deu", [{"type": "function", "function": {"name": "f"}}], {"type": "text"}),
    *({"temperature": None}, {"max_new_tokens": "3"}, ["text"], {"50001": 1}, {"a b": 1}),
]


def agrees(rule: Any, value: Any) -> bool | None:
    """Whether the schema accepts a value exactly if the check does."""
    import jsonschema

    try:
        rule.check(value)
        taken = True
    except Exception:
        taken = False
    schema = json.loads(json.dumps(rule.schema()))
    return jsonschema.Draft202012Validator(schema).is_valid(value) == taken


def test_a_schema_takes_what_the_check_takes_and_nothing_else() -> None:
    pytest.importorskip("jsonschema")
    seen: set[str] = set()
    for parameter in rules():
        (rule,) = parameter.values
        if repr(rule) in seen:
            continue
        seen.add(repr(rule))
        wrong = [value for value in SOME if not agrees(rule, value)]
        # a group also takes null for its members, and the bound of a token id is not in the schema
        wrong = [value for value in wrong if value != {"50001": 1}]
        assert not wrong, (parameter.id, wrong)
    assert len(seen) > 80


def test_at_the_edges_of_every_number_schema_and_check_agree() -> None:
    pytest.importorskip("jsonschema")
    for parameter in rules():
        (rule,) = parameter.values
        least, most = getattr(rule, "least", None), getattr(rule, "most", None)
        if least is None or most is None or hasattr(rule, "form") or hasattr(rule, "of"):
            continue
        near = [least, most, least - 1, most + 1, math.nextafter(least, -math.inf), math.nextafter(most, math.inf)]
        assert all(agrees(rule, value) for value in near), parameter.id


def test_a_name_that_is_refused_stands_in_no_document() -> None:
    for task in KINDS:
        parameters = parameters_of(task, LIMITS)
        properties = document_of(task)["components"]["schemas"]["Parameters"]["properties"]
        assert properties.keys() == parameters.keys()
        assert not properties.keys() & (REFUSED.keys() - parameters.keys())


def test_all_fields_of_a_table_are_in_the_body_made_of_it() -> None:
    made = body_of({"messages": {}}, chat_fields(LIMITS), "messages")
    assert made["properties"].keys() > {"messages", *chat_fields(LIMITS)}
    assert made["additionalProperties"] is False


# a running server


@pytest.fixture(scope="module")
def chat(start_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models")
    program = ROOT / "tests" / "attack" / "models.py"
    subprocess.run([sys.executable, program, folder, "chat"], check=True, capture_output=True)
    return start_server(folder / "chat").wait_until_ready()


@pytest.fixture(scope="module")
def speech(start_server: Any) -> Any:
    return start_server("whisper", EXTENDED_DLC_ANSWER_SECONDS="20").wait_until_ready()


@pytest.fixture(scope="module")
def labels(start_server: Any) -> Any:
    return start_server("bert-classifier").wait_until_ready()


def told_by(server: Any) -> dict[str, Any]:
    answer = server.request("GET", "/openapi.json")
    assert (answer.status, answer.content_type) == (200, "application/json")
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("chat", "text-generation"),
        ("speech", "automatic-speech-recognition"),
        ("labels", "text-classification"),
    ],
)
def test_a_server_answers_what_is_in_the_docs_with_its_own_limits(
    request: pytest.FixtureRequest, kind: str, task: str
) -> None:
    served = told_by(request.getfixturevalue(kind))
    documented = document_of(task)
    # text-classification reranks in the docs, and this one has several labels
    assert served["paths"].keys() <= documented["paths"].keys()
    assert documented["paths"].keys() - served["paths"].keys() <= {"/rerank", "/v1/rerank", "/v2/rerank"}
    assert without_limits({k: served["paths"][k] for k in served["paths"]}) == without_limits(
        {k: documented["paths"][k] for k in served["paths"]}
    )
    ours = served["components"]["schemas"]["Parameters"]["properties"]
    theirs = documented["components"]["schemas"]["Parameters"]["properties"]
    assert ours.keys() <= theirs.keys()
    assert without_limits(ours) == without_limits({name: theirs[name] for name in ours})


def without_limits(value: Any) -> Any:
    """A document without the limits that depend on the model, and without its chat template's variables."""
    if isinstance(value, dict):
        variables = {"chat_template_kwargs", "tokenizer_encode_kwargs"}
        return {
            name: without_limits(inner)
            for name, inner in value.items()
            if name not in {"maximum", "maxItems", "description", *variables}
        }
    return [without_limits(one) for one in value] if isinstance(value, list) else value


def test_it_is_told_as_other_things_are(chat: Any, start_server: Any) -> None:
    assert chat.request("HEAD", "/openapi.json").body == b""
    assert chat.request("POST", "/openapi.json", b"").error[0] == 405
    answer = chat.request("GET", "/openapi.json?x=1")
    assert answer.status == 200


def test_code_of_the_users_own_has_a_document_of_its_routes() -> None:
    served = document(Served(task="user-code", kind=None))
    assert "/invocations" in served["paths"]
    assert not {"/v1/chat/completions", "/v1/embeddings"} & served["paths"].keys()
    assert "Parameters" not in served["components"]["schemas"]


@pytest.fixture(scope="module")
def schemathesis(kept_packages: Any) -> Path:
    folder: Path = kept_packages(SCHEMATHESIS.replace("==", "-"), SCHEMATHESIS)
    return folder


@pytest.mark.parametrize("kind", ["chat", "speech"])
def test_schemathesis_finds_no_error_of_ours(request: pytest.FixtureRequest, schemathesis: Path, kind: str) -> None:
    """Neither a request that follows the document nor one that violates it gets a 5xx."""
    server = request.getfixturevalue(kind)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json"),
        *("--checks", "not_a_server_error", "--phases", PHASES, "--max-time", str(SECONDS)),
        *("--request-timeout", "30", "--suppress-health-check", "all", "--seed", "7", "--no-color"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(schemathesis)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.ping() == 200
    assert "Traceback" not in server.log


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        file.write_text(text)
