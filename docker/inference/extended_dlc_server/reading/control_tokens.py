"""Control tokens in chats: what users, tools and documents say is text, also where it spells a control token.

A control token is one that a chat template writes to begin or end a message, such as `<|im_end|>`. Newer releases of
transformers can encode those of messages as text; `apply_chat_template` is asked to do so for the chats that need it.
They mark such tokens in the messages, and a template that writes a message with Python's or JSON's escapes changes the
marks: so the control tokens are counted, beside those of the same chat without any in its messages.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..errors import RequestError, shown
from ..writing.replies import thinking_of
from .inputs import names_in, strings_in

_BY_THE_APPLICATION = ("system", "developer", "assistant")
"""Roles whose messages the application writes, and where its control tokens stay tokens. The others quote somebody."""

_OF_THE_APPLICATION = ("content", "reasoning_content")
"""Members of these messages that the application may have written control tokens into."""

_OF_TOKENIZING = frozenset(
    {
        *("tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"),
        *("processor_kwargs", "return_assistant_tokens_mask"),
    }
)
"""Options of `apply_chat_template` about the tokens, and not about the text."""

_OPTION = "sanitize_control_tokens"

_MOST_STEPS = 30_000_000
"""Most steps in which transformers may search a chat for control tokens: 1 s, in which no other thread runs. For each
character with which a token begins, its regular expression tries all tokens."""


class ControlTokens:
    """The control tokens of one chat template."""

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        """Let `apply_chat_template` of the tokenizer, or processor, encode them as text where they are quoted."""
        self._all: tuple[str, ...] = ()
        self._quoted: tuple[str, ...] = ()
        self._begin: frozenset[str] = frozenset()
        self._tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        apply = getattr(tokenizer, "apply_chat_template", None)
        if template is None or apply is None or _OPTION not in inspect.signature(apply).parameters:
            return
        apply = getattr(apply, "sanitizes", apply)
        found = _control_tokens(self._tokenizer, template)
        can = functools.partial(_can_be_text, apply)
        if can([]):
            self._all = tuple(_those_that_can(can, sorted(found, key=len, reverse=True)))
        thinking = thinking_of(template)
        # people ask for reasoning in these tags, which begin and end no message
        harmless = {thinking.opens, thinking.closes} if thinking else set()
        self._quoted = tuple(token for token in self._all if token not in harmless)
        self._begin = frozenset(token[0] for token in self._all)
        # a processor writes those of its images and sounds several times
        repeated = {getattr(tokenizer, f"{kind}_token", None) for kind in ("image", "video", "audio")}
        self._ids = frozenset(
            self._tokenizer.convert_tokens_to_ids([token for token in self._all if token not in repeated])
        )
        tokenizer.apply_chat_template = self._as_text_where_quoted(apply)

    def are_quoted(self, messages: Any, options: Mapping[str, Any]) -> bool:
        """Whether a message of a user or a tool, a call, tool, document or variable in them spells a control token.

        400 for one that is spelled in several parts or by the name of a member, which transformers leaves as they are,
        and for a chat that would take long to search for them.
        """
        if not self._quoted:
            return False
        given: list[Any] = [value for name, value in options.items() if name not in _OF_TOKENIZING]
        for message in messages:
            if not isinstance(message, Mapping):
                continue
            is_ours = message.get("role") in _BY_THE_APPLICATION
            if not is_ours:
                self._refuse_in_parts(message.get("content"))
            without = ("role", *_OF_THE_APPLICATION) if is_ours else ("role",)
            given.append({name: value for name, value in message.items() if name not in without})
        for name in names_in(given):
            if self._is_in(name):
                raise _bad(
                    f"has an object with the name {shown(name)}, which spells a control token of the model: rename it"
                )
        if not any(self._is_in(text) for text in strings_in(given)):
            return False
        steps = sum(text.count(letter) for text in strings_in([messages, *options.values()]) for letter in self._begin)
        if steps * len(self._all) > _MOST_STEPS:
            raise _bad(
                "spells a control token of the model and is too long for that: send a shorter chat, or without it"
            )
        return True

    def spelled(self, value: Any) -> Any:
        """Return messages or documents with each control token letter by letter: more tokens than its text has."""
        if isinstance(value, str):
            for token in self._all:
                value = value.replace(token, " ".join(token))
            return value
        if isinstance(value, list):
            return [self.spelled(one) for one in value]
        return {name: self.spelled(one) for name, one in value.items()} if isinstance(value, dict) else value

    def _count(self, ids: Any) -> Counter[int]:
        """Count the control tokens in lists, or a tensor, of token ids."""
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        rows = ids if ids and isinstance(ids[0], list) else [ids]
        return Counter(token for row in rows for token in row if token in self._ids)

    def _is_in(self, text: str) -> bool:
        """Not by a regular expression, which takes 8 s for a million of `<` and 256 tokens."""
        return any(letter in text for letter in self._begin) and any(token in text for token in self._quoted)

    def _refuse_in_parts(self, content: Any) -> None:
        """400 for a control token that templates would make of several parts by writing them without a space."""
        if not isinstance(content, list):
            return
        texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        if len(texts) > 1 and self._is_in(joined := "".join(texts)):
            for token in self._quoted:
                if joined.count(token) > sum(text.count(token) for text in texts):
                    raise _bad(
                        "has a message whose parts together spell a control token of the model: send them as one"
                    )

    def _as_text_where_quoted(self, apply: Callable[..., Any]) -> Callable[..., Any]:
        makes_tokens = inspect.signature(apply).parameters["tokenize"].default

        @functools.wraps(apply)
        def applied(conversation: Any, *arguments: Any, **options: Any) -> Any:
            if not options.get("tokenize", makes_tokens) or not any(
                self.are_quoted(chat, options) for chat in _chats(conversation)
            ):
                return apply(conversation, *arguments, **options)
            made = apply(conversation, *arguments, **{**options, _OPTION: True})
            of_text = {name: self.spelled(value) for name, value in options.items() if name not in _OF_TOKENIZING}
            chats = [self.spelled(list(chat)) for chat in _chats(conversation)]
            texts = apply(chats, *arguments, **of_text, tokenize=False)
            expected = self._count(self._tokenizer(texts, add_special_tokens=False).input_ids)
            if self._count(made["input_ids"] if isinstance(made, Mapping) else made) - expected:
                raise _bad(
                    "spells a control token of the model where the chat template changes it, so that it cannot be read "
                    "as text: send the chat without it"
                )
            return made

        applied.sanitizes = apply  # type: ignore[attr-defined]
        return applied


def _chats(conversation: Any) -> Iterator[Any]:
    is_one = isinstance(conversation, list) and conversation and isinstance(conversation[0], Mapping)
    for chat in [conversation] if is_one else conversation:
        yield getattr(chat, "messages", chat)


def _control_tokens(tokenizer: Any, template: str) -> frozenset[str]:
    """Return the special tokens, and the other added tokens that the template writes, but not white space."""
    added: Iterable[Any] = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return frozenset(
        token.content for token in added if token.content.strip() and (token.special or token.content in template)
    )


def _those_that_can(can: Callable[[list[str]], bool], tokens: list[str]) -> list[str]:
    """Return the tokens that can be text; a tokenizer may have a thousand, and one that cannot."""
    if not tokens or can(tokens):
        return tokens
    middle = len(tokens) // 2
    return [*_those_that_can(can, tokens[:middle]), *_those_that_can(can, tokens[middle:])] if middle else []


def _can_be_text(apply: Callable[..., Any], tokens: list[str]) -> bool:
    """Whether the release can encode these control tokens as text with this tokenizer.

    A template of one message is rendered: the model's own may refuse any message that we could make up.
    """
    template = "{{ messages[0]['content'][0]['text'] }}{% if false %}{{ " + json.dumps(tokens) + " }}{% endif %}"
    messages = [{"role": "user", "content": [{"type": "text", "text": " ".join(("hello", *tokens))}]}]
    try:
        apply(messages, chat_template=template, tokenize=True, **{_OPTION: True})
    except Exception:
        return False
    return True


def _bad(problem: str) -> RequestError:
    return RequestError(400, "bad-inputs", f"'inputs' {problem}")
