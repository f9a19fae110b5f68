"""The openai package as a program: each line of standard input is a call, each line of output what it returned.

    {"base_url": "http://127.0.0.1:8080/v1", "call": "chat.completions.create", "arguments": {"messages": [...]}}

A stream is the list of its chunks; an error is its class, its status and its body.
"""

from __future__ import annotations

import json
import operator
import sys
from typing import Any

import openai


def main() -> None:
    """Answer line by line."""
    for line in sys.stdin:
        asked = json.loads(line)
        client = openai.OpenAI(base_url=asked["base_url"], api_key="none", max_retries=0)
        print(json.dumps(_call(client, asked["call"], asked["arguments"])), flush=True)


def _call(client: openai.OpenAI, name: str, arguments: dict[str, Any]) -> Any:
    try:
        made: Any = operator.attrgetter(name)(client)(**arguments)
        return [_valid(chunk) for chunk in made] if isinstance(made, openai.Stream) else _valid(made)
    except openai.APIStatusError as error:
        return {"raised": type(error).__name__, "status": error.status_code, "error": error.body}
    except Exception as error:
        return {"raised": type(error).__name__, "error": getattr(error, "body", str(error))}


def _valid(made: Any) -> Any:
    """Validate a response with the client's own type, which the client does not do."""
    found = made.to_dict()
    parts_of_completions = found.get("object") == "text_completion" and found["choices"][:1]
    if not (
        parts_of_completions and found["choices"][0]["finish_reason"] is None
    ):  # which its type lacks, and its API has
        type(made).model_validate(found)
    return found


if __name__ == "__main__":
    main()
