"""Compatibility of pipeline tasks with transformers releases and servers."""

from __future__ import annotations

from extended_dlc.facts._tables import did_you_mean
from extended_dlc.facts.catalog import version
from extended_dlc.facts.compat import Server
from extended_dlc.facts.releases import Task, find_task, releases, task_names

NOT_SERVED = frozenset({"conversational", "video-classification"})
"""Tasks that the native server does not serve: one was removed before its oldest release, the other reads files."""

NATIVE_ONLY = frozenset({"sentence-embeddings", "sentence-ranking", "sentence-similarity", "text-ranking"})
"""Tasks of the native server that no transformers release has a pipeline for."""

CHAT_TASKS = ("text-generation", "image-text-to-text")
"""Tasks whose models answer completions, and chats if they have a chat template; messages may contain images."""

_INSTEAD = {
    "image-to-text": "image-text-to-text",
    "summarization": "text-generation",
    "text2text-generation": "text-generation",
    "translation": "text-generation",
    "visual-question-answering": "image-text-to-text",
    "vqa": "image-text-to-text",
}


def check_task(task: str, transformers: str | None, server: Server | None) -> str | None:
    """Refuse a task that is known not to be served; return a note if that is not known.

    :param transformers: Release in the image; None, which passes, if unknown.
    :param server: The server; None for one that is neither this project's nor AWS's, which may serve any task.
    """
    if task in NATIVE_ONLY and server == "native":
        return None
    spans = find_task(task)
    if not spans:
        near = did_you_mean(task, task_names())
        unread = transformers is None or version(transformers) > version(list(releases())[-1])
        if server != "native" or unread:
            return f"task '{task}' is no pipeline of a transformers release read here{near}: it is not checked"
        raise ValueError(f"is no task of transformers {transformers}{near}: the native server runs pipelines only")
    if transformers is not None and not any(_covers(span, transformers) for span in spans):
        raise ValueError(_out_of_span(task, spans, transformers))
    if server == "native" and (spans[-1].alias_of or task) in NOT_SERVED:
        raise ValueError(
            "is not served by the native server, because its pipeline reads files or URLs only: serve it with code of "
            "your own (InferenceCode)"
        )
    return None


def _covers(span: Task, transformers: str) -> bool:
    asked = version(transformers)
    # The first release of the table also stands for older ones.
    since = span.first == next(iter(releases())) or version(span.first) <= asked
    return since and (span.last is None or asked <= version(span.last))


def _out_of_span(task: str, spans: tuple[Task, ...], transformers: str) -> str:
    """The end of the error, with the releases that have the task."""
    text = f"is no task of transformers {transformers}: "
    before = [span.last for span in spans if span.last and version(span.last) < version(transformers)]
    if not before:
        return f"{text}it came with {spans[0].first}; take that release or a newer one"
    text += f"it was removed after {before[-1]}; take {before[-1]}"
    again = next((span for span in spans if version(span.first) > version(transformers)), None)
    if again is not None:
        text += f", or {again.first} or newer, where it is another name of '{again.alias_of}'"
    if task in _INSTEAD:
        text += f", or the task '{_INSTEAD[task]}' with a model that has it"
    return text
