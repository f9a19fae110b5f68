"""Compiles grammars in a process of its own, before the server does: some overflow the stack, others take minutes.

llguidance compiles a schema by recursion. A chain of 3,000 references needs more stack than a thread has, which ends
the process, and an intersection of patterns can take hours, which no other thread can end.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

CPU_SECONDS = 1.0
"""Most CPU time to compile a grammar: the model's thread compiles it too, while others wait. Usual ones take 0.01 s."""

STACK_BYTES = 2 * 1024**2
"""Stack of the thread that compiles here, a quarter of what the model's thread has."""

_WAIT_SECONDS = 20
_BEGUN = "begun"

_MOST_KNOWN = 1000
_known: dict[bytes, str] = {}
"""Hash of a grammar -> why it is refused, empty for a good one: clients send the same few schemas again and again."""


def is_known(grammar: str) -> bool:
    """Whether `problem_of` knows the answer already."""
    return _key(grammar) in _known


def problem_of(grammar: str) -> str:
    """Return why a grammar cannot be used, or an empty string. Takes 0.2 s for a new one."""
    key = _key(grammar)
    if key not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[key] = _compiled_apart(grammar)
    return _known[key]


def _key(grammar: str) -> bytes:
    return hashlib.sha256(grammar.encode("utf-8", "replace")).digest()


def _compiled_apart(grammar: str) -> str:
    from ..machine import children

    spec, said = find_spec("llguidance"), bytearray()
    assert spec is not None  # noqa: S101 - the caller has looked
    assert spec.origin is not None  # noqa: S101 - it is a package with files
    command = [sys.executable, "-I", __file__, str(Path(spec.origin).parents[1])]
    with children.input_of(grammar.encode("utf-8", "replace")) as source:
        try:
            children.run(
                command,
                seconds=_WAIT_SECONDS,
                cpu_seconds=int(CPU_SECONDS) + 2,
                stdin=source,
                output=said.extend,
                drops_rights=False,  # it opens no file, and its modules may be readable by the server's user only
            )
        except TimeoutError:
            return "it takes too long to compile"
    begun, _, made = said.decode("utf-8", "replace").partition("\n")
    if begun != _BEGUN:
        raise RuntimeError("llguidance cannot be imported by a process of its own")
    if not made:  # the process has ended in the middle
        return "its references or patterns are too many to compile"
    problem, seconds = json.loads(made)
    return str(problem) or ("it takes too long to compile" if seconds > CPU_SECONDS else "")


def _main() -> None:
    """Compile the grammar on standard input, with the llguidance of the folder that is named."""
    sys.path.insert(0, sys.argv[1])
    matcher = importlib.import_module("llguidance").LLMatcher
    print(_BEGUN, flush=True)
    grammar, found = sys.stdin.buffer.read().decode(), []
    began = time.process_time()

    def compile_it() -> None:
        found.append(matcher.validate_grammar(grammar))

    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=compile_it)
    thread.start()
    thread.join()
    print(json.dumps([found[0], time.process_time() - began]), flush=True)


if __name__ == "__main__":
    _main()
