"""`extended-dlc ask`."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from extended_dlc import files
from extended_dlc.cli._aws import REGION_HELP, credentials_of, session_in
from extended_dlc.cli.exit_codes import FAILED, STOPPED
from extended_dlc.terminal import Passing, Screen


@click.command()
@click.argument("name")
@click.argument("what", metavar="TEXT|FILE|-", required=False)
@click.option("--sample", is_flag=True, help="Ask with two seconds of sound (a tone) that need no file.")
@click.option("--chat/--no-chat", default=None, help="Ask as a chat, or not. Default: a chat where vLLM answers.")
@click.option(
    "-p",
    "--parameter",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter, as max_new_tokens=50: JSON where it is JSON, else a text. NAME may be A.B.",
)
@click.option("--component", metavar="NAME", help="Component that answers, of an endpoint with several.")
@click.option("--variant", metavar="NAME", help="Variant that answers. Default: as the weights have it.")
@click.option("--content-type", metavar="TYPE", help="What the file is. Default: by its first bytes or its name.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write the answer as it came into a file.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 21600),
    default=900,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a copy that wakes up, or for an asynchronous answer.",
)
@click.option("--region", help=REGION_HELP)
@click.option("--profile", help="AWS profile that asks. Default: that of the environment.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: answer, status and seconds.")
def ask(**given: Any) -> None:
    """Ask the endpoint NAME, and print its answer as it comes, and how long it took.

    A file is sent as what it is: a text, a sound, a picture, or JSON as the whole body, and so is a TEXT that is an
    object of JSON; - reads standard input. Ends with status 0 with an answer, 1 without one, with what AWS or the
    model's server says and what to do, and 130 when it was stopped.
    """
    options = Options(**given)
    if options.sample == (options.what is not None):
        raise click.UsageError("give one of TEXT, FILE, - and --sample")
    from extended_dlc.asking.errors import AskError, Stopped

    try:
        result = _ask(options)
    except AskError as error:
        stopped = isinstance(error, Stopped)
        if options.as_json:
            status = "stopped" if stopped else "failed"
            result = {"endpoint": options.name, "status": status, "error": error.message, "next": error.hint}
            click.echo(json.dumps(result))
        else:
            Screen(err=True).error(str(error))
        sys.exit(STOPPED if stopped else FAILED)
    if options.as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    name: str
    what: str | None
    sample: bool
    chat: bool | None
    given: tuple[str, ...]
    component: str | None
    variant: str | None
    content_type: str | None
    no_stream: bool
    output: str | None
    timeout: float
    region: str | None
    profile: str | None
    as_json: bool

    @property
    def streams(self) -> bool:
        """Whether the answer is printed as it comes."""
        return not (self.no_stream or self.output)


def _ask(options: Options) -> dict[str, Any]:
    """Send the request, print the response, and return the content of the JSON output."""
    from botocore.exceptions import BotoCoreError, ClientError

    from extended_dlc.asking import content
    from extended_dlc.asking.errors import AskError, explained, unreachable
    from extended_dlc.asking.sending import Asker
    from extended_dlc.asking.target import check_size, find_target

    name = options.name
    _check_names({"NAME": name, "--component": options.component, "--variant": options.variant})
    values = content.parameters(options.given)
    if options.output is not None and not Path(options.output).absolute().parent.is_dir():
        raise AskError(f"'--output' ({options.output}) is in a folder that does not exist", "make it, or name another")
    asked = _content(options.what, options.content_type)
    session = session_in(options.profile, options.region)
    credentials_of(session)
    screen = _Answer(as_json=options.as_json)
    try:
        target = find_target(
            _describer(session),
            name,
            region=session.region_name,
            component=options.component,
            variant=options.variant,
            looks_at_model=asked.text is not None and not options.chat,
        )
        if target.note:
            screen.note(target.note)
        asker = Asker(
            session=session,
            target=target,
            timeout=options.timeout,
            progress=screen.progress,
            say=screen.text,
            between=float(os.environ.get("EXTENDED_DLC_ASK_SECONDS") or 3),
        )
        streams = options.streams and target.streams
        bodies = _bodies(asked, values, chat=options.chat, is_vllm=target.is_vllm, streams=streams)
        check_size(target, len(bodies[0].data))
        answer = _first_that_is_taken(asker, bodies)
    except ClientError as error:
        raise explained(error, endpoint=name, region=session.region_name) from None
    except BotoCoreError as error:
        raise unreachable(error) from None
    finally:
        screen.end()
    return _tell(name, answer, screen, options.output)


def _check_names(names: dict[str, str | None]) -> None:
    from extended_dlc.asking.errors import AskError
    from extended_dlc.facts.checks import check_endpoint_name

    for option, name in names.items():
        if name is not None:
            try:
                check_endpoint_name(name)
            except ValueError as error:
                raise AskError(f"{option} ('{name[:100]}') {error}") from None


def _content(what: str | None, content_type: str | None) -> Any:
    """The content of the request: the sample, standard input, a file, or the text itself."""
    from extended_dlc.asking.content import Content, looks_like_a_file, of_bytes, of_text
    from extended_dlc.asking.errors import AskError

    if what is None:
        from extended_dlc.rehearsal.speech import tone_wav

        return Content(data=tone_wav(seconds=2), content_type="audio/wav")
    if what == "-":
        return of_bytes(sys.stdin.buffer.read(), "standard input", content_type=content_type)
    try:
        path = Path(what)
        if path.is_dir() and (len(path.parts) > 1 or looks_like_a_file(what)):
            raise AskError(f"'{what}' is a folder", "name a file in it")
        if path.exists() and not path.is_dir():  # a pipe, too, as of the shell's <(…)
            return of_bytes(path.read_bytes(), what, content_type=content_type)
    except OSError as error:
        if Path(what[:200]).is_file():
            raise AskError(f"'{what}' cannot be read ({error})", "correct its rights") from None
    except ValueError:  # a text that is not a valid path
        pass
    if looks_like_a_file(what):
        raise AskError(f"there is no file '{what}'", "correct the path; to ask with these words, pipe them in: -")
    if content_type is not None:
        return of_bytes(what.encode(errors="surrogateescape"), what[:50], content_type=content_type)
    return of_text(what)


def _describer(session: Any) -> Any:
    from botocore.config import Config

    return session.client("sagemaker", config=Config(connect_timeout=5, read_timeout=20))


def _bodies(asked: Any, values: dict[str, Any], *, chat: bool | None, is_vllm: bool, streams: bool) -> list[Any]:
    """The request bodies to try in turn, until the server accepts the form of one."""
    from dataclasses import replace

    from extended_dlc.asking import content

    if asked.text is not None and is_vllm:
        # Models without a chat template, such as BLOOM, answer only the second body.
        bodies = [content.completion(asked, values, stream=streams)]
        if chat is None:
            bodies.insert(0, content.chat(asked, values, stream=streams))
    elif chat:
        bodies = [content.chat(asked, values, stream=streams)]
    else:
        bodies = [content.plain(asked, values, stream=streams)]
        if bodies[0].accept is not None:  # for servers without streaming, such as the stock one
            bodies.append(replace(bodies[0], accept=None, streams=False))
    return bodies


def _first_that_is_taken(asker: Any, bodies: list[Any]) -> Any:
    """The response to the first body whose form the server accepts."""
    from extended_dlc.asking.errors import ModelRefused

    *others, last = bodies
    for body in others:
        try:
            return asker.ask(body)
        except ModelRefused as error:
            said = error.message.lower()
            form = "chat template" if body.accept is None else "stream"
            if error.status < 400 or (form not in said and "not-acceptable" not in said):
                raise
    return asker.ask(last)


def _tell(name: str, answer: Any, screen: _Answer, output: str | None) -> dict[str, Any]:
    """Print the response and its latency, and return both for the JSON output."""
    from extended_dlc.asking.errors import AskError
    from extended_dlc.asking.reading import shown

    text = answer.text
    if text is None:
        text = shown(answer.data, answer.content_type)
        if output is not None:
            _write(output, answer.data)
        elif text is None:
            kind = answer.content_type
            raise AskError(f"the answer is {kind}, {len(answer.data):,} bytes", "write it to a file with --output FILE")
        else:
            screen.text(text)
    screen.end()
    seconds = {"first": answer.first, "whole": answer.whole, "waited": answer.waited}
    screen.latency(answer, output)
    return {
        "endpoint": name,
        "status": "answered",
        "answer": _parsed(answer) if answer.text is None else answer.text,
        "content_type": answer.content_type,
        "seconds": {key: None if value is None else round(value, 3) for key, value in seconds.items()},
        **({"variant": answer.variant} if answer.variant else {}),
        **({"location": answer.location} if answer.location else {}),
        **({"file": output} if output else {}),
    }


def _parsed(answer: Any) -> Any:
    """The response for the JSON output; None if it is not text."""
    try:
        text = answer.data.decode()
    except UnicodeDecodeError:
        return None
    try:
        return json.loads(text) if answer.content_type.startswith("application/json") else text
    except ValueError:
        return text


def _write(file: str, data: bytes) -> None:
    from extended_dlc.asking.errors import AskError

    try:
        files.write(Path(file), data)
    except OSError as error:
        raise AskError(f"'--output' ({file}) cannot be written ({error})", "name another file") from None


class _Answer:
    """Prints the response to standard output, and progress and latency to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._out = Screen()
        self._beside = Screen(err=True)
        self._passing = Passing(sys.stderr, at_once=True)
        self._open = False

    def text(self, text: str) -> None:
        """Print a part of the response."""
        self._passing.clear()
        if not self._as_json and text:
            self._out.text(text)
            self._open = not text.endswith("\n")

    def end(self) -> None:
        self._passing.clear()
        if self._open:
            self._out.text("\n")
            self._open = False

    def note(self, line: str) -> None:
        self._passing.clear()
        self._beside.line(line)

    def progress(self, what: str) -> None:
        """Show what the command waits for, and for how long."""
        self._passing.show(f"{what} ({time.monotonic() - self._began:.0f} s)")

    def latency(self, answer: Any, output: str | None) -> None:
        if self._as_json:
            return
        parts = [f"first token {answer.first:.2f} s"] if answer.first is not None else []
        parts.append(f"whole {answer.whole:.2f} s")
        if answer.waited:
            parts.append(f"after {answer.waited:.0f} s of waiting for a copy")
        if output:
            parts.append(f"{answer.content_type} in {output}")
        if answer.location:
            parts.append(answer.location)
        self._beside.line(", ".join(parts), "quiet")
