"""Chats of text tasks: validation of messages, and rendering by the model's chat template."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import RequestError, shown, shown_text
from ..machine.ending import check
from .control_tokens import ControlTokens
from .roles import check_message, check_tools, parsed_template, roles_of

log = logging.getLogger(__name__)

MOST_MESSAGES = 10_000
"""Maximum number of messages in a chat."""

RENDER_SECONDS = 2.0
"""Most CPU time that the chats of a request may take to render; a hundred messages usually take 0.01 s.

Some templates look at all later messages for each message, such as that of gpt-oss, or build a text up by appending.
"""

_RESERVED = frozenset(
    {
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "raise_exception"),
        *("strftime_now", "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"),
        *("conversation", "chat_template", "tokenize", "padding", "truncation", "max_length", "return_tensors"),
        *("return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "sanitize_control_tokens"),
        *("additional_special_tokens", "namespace", "loop", "range", "dict", "self"),
    }
)


def is_chat(inputs: Any) -> bool:
    """Whether the inputs are the messages of one chat."""
    return isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], dict)


class RenderTime:
    """The time left to render the chats of one request."""

    def __init__(self) -> None:
        """The time of this thread counts from now on."""
        self._end = time.thread_time() + RENDER_SECONDS

    def check(self) -> None:
        """400 if the time is over; ends what nobody waits for any longer."""
        check()
        if time.thread_time() > self._end:
            raise _bad(
                f"takes the model's chat template more than {RENDER_SECONDS:g} s: send fewer or shorter messages"
            )


_rendering = threading.local()
"""`left` is the time of the chats that this thread renders."""


def _check_each_access(template: str) -> None:
    """Make a template check the time whenever it reads a part of a message, as every loop over messages does.

    transformers renders plain copies of messages, in a Jinja environment of its own for each template, which it keeps.
    """
    from transformers.utils import chat_template_utils

    environment: Any = chat_template_utils._compile_jinja_template(template).environment
    if getattr(environment, "checks_time", False):
        return
    environment.checks_time = True
    environment.getattr = _checked(environment.getattr)
    environment.getitem = _checked(environment.getitem)


def _checked(access: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def check_and_access(value: Any, name: Any) -> Any:
        left: RenderTime | None = getattr(_rendering, "left", None)
        if left is not None:
            left.check()
        return access(value, name)

    return check_and_access


class Chats:
    """Validates and renders chats for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Read the template's variables, and whether it supports content in parts."""
        from jinja2 import TemplateError

        self._tokenizer = tokenizer
        self.template: str | None = template_of(tokenizer)
        self._roles = roles_of(self.template)
        self.variables = _variables_of(self.template) if self.template else frozenset()
        if self.template:
            try:
                _check_each_access(self.template)
            except TemplateError as error:
                log.warning("every chat will be refused, because the model's chat template cannot be read: %s", error)
        self._takes_parts = bool(self.template) and self._renders_parts()
        self._control = ControlTokens(tokenizer, self.template)

    def check(self, inputs: Any) -> Any:
        """Return texts unchanged, and chats with messages as the template needs them; 400 for invalid messages."""
        if isinstance(inputs, str):
            return inputs
        if not isinstance(inputs, list):
            raise _bad("must be a text, a list of texts, or chat messages")
        if isinstance(inputs[0], dict):
            return self._messages(inputs)
        if isinstance(inputs[0], list):
            return [self._messages(chat) for chat in inputs]
        return inputs

    def render(
        self,
        messages: list[dict[str, Any]],
        arguments: Mapping[str, Any],
        variables: Mapping[str, Any],
        left: RenderTime | None = None,
    ) -> str:
        """Render the prompt; 400 with the template's error message for messages that it rejects.

        `left` is the time for all chats of a request, by default of this one only.
        """
        from jinja2 import TemplateError

        if self.template is None:
            raise _bad("holds chat messages, and this model has no chat template: send the prompt as a text")
        check_tools(arguments.get("tools"))
        check()
        _rendering.left = left or RenderTime()
        try:
            prompt: str = self._apply(messages, arguments, variables, tokenize=False)
        except TemplateError as error:
            raise _bad(f"is refused by the model's chat template: {shown_text(error)}") from None
        except (MemoryError, RequestError):
            raise
        except Exception as error:
            raise _bad(
                f"does not fit the model's chat template ({type(error).__name__}: {shown_text(error)}): give each "
                "message a 'role' and a 'content' that is a text"
            ) from None
        finally:
            _rendering.left = None
        return prompt

    def render_to_count(
        self,
        messages: list[dict[str, Any]],
        arguments: Mapping[str, Any],
        variables: Mapping[str, Any],
        left: RenderTime | None = None,
    ) -> str:
        """Render as `render`; control tokens that a chat quotes are written so that they are as many tokens as text."""
        if self.quotes_control_tokens(messages, arguments, variables):
            spelled = {name: self._control.spelled(arguments.get(name)) for name in ("tools", "documents")}
            messages, arguments = self._control.spelled(messages), {**arguments, **spelled}
            variables = self._control.spelled(dict(variables))
        return self.render(messages, arguments, variables, left)

    def quotes_control_tokens(
        self, messages: list[dict[str, Any]], arguments: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> bool:
        """Whether the chat spells a control token that is to be text, such as in a message of a user or a tool."""
        beside = {name: arguments.get(name) for name in ("tools", "documents")}
        return self._control.are_quoted(messages, {**beside, **variables})

    def tokens(
        self, messages: list[dict[str, Any]], arguments: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> list[int]:
        """Tokenize a chat that can be rendered, the control tokens in it as text if it quotes any."""
        try:
            found: list[int] = self._apply(messages, arguments, variables, tokenize=True, return_dict=False)
        except ValueError as error:
            raise _bad(f"spells a control token that the model cannot read as text: {shown_text(error)}") from None
        return found

    @staticmethod
    def goes_on(messages: list[dict[str, Any]], arguments: Mapping[str, Any]) -> bool:
        """Whether to continue the last message: by default, if its role is assistant."""
        asked = arguments.get("continue_final_message")
        return bool(messages[-1]["role"] == "assistant" if asked is None else asked)

    def _apply(
        self,
        messages: list[dict[str, Any]],
        arguments: Mapping[str, Any],
        variables: Mapping[str, Any],
        **how: bool,
    ) -> Any:
        options = {name: arguments[name] for name in ("tools", "documents") if arguments.get(name)}
        goes_on = self.goes_on(messages, arguments)
        return self._tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            **how,
            **options,
            **variables,
        )

    def _messages(self, chat: Any) -> list[dict[str, Any]]:
        if not isinstance(chat, list) or not 0 < len(chat) <= MOST_MESSAGES:
            raise _bad(f"must hold chats of 1 to {MOST_MESSAGES} messages")
        return [self._message(message) for message in chat]

    def _message(self, message: Any) -> dict[str, Any]:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _bad("must hold chat messages: objects with a 'role' and a 'content'")
        check_message(message, self._roles)
        content = message.get("content")
        if isinstance(content, list):
            texts = [_text_of(part) for part in content]
            return message if self._takes_parts else {**message, "content": "\n".join(texts)}
        # null, as in a message with tool calls, is left to the template
        if content is not None and not isinstance(content, str):
            raise _bad(f"has a message whose 'content' is {shown(content)}: it must be a text, or a list of text parts")
        return message

    def _renders_parts(self) -> bool:
        parts = [{"role": "user", "content": [{"type": "text", "text": "extended-dlc"}]}]
        try:
            made = self._tokenizer.apply_chat_template(parts, tokenize=False)
        except Exception:
            return False
        return "extended-dlc" in made and "'type'" not in made and '"type"' not in made


def _text_of(part: Any) -> str:
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    kind = part.get("type") if isinstance(part, dict) else part
    raise _bad(f"has a message with content of type {shown(kind)}: this model takes text parts only")


def template_of(tokenizer: Any) -> str | None:
    """Return the chat template of a tokenizer, or of a processor, which has no method for it."""
    try:
        template: Any = tokenizer.get_chat_template()
    except AttributeError:
        template = getattr(tokenizer, "chat_template", None)
    except ValueError:  # no template, or several without a default
        return None
    return template if isinstance(template, str) else None


def _variables_of(template: str) -> frozenset[str]:
    """Return the names that the template reads and that transformers does not set."""
    from jinja2 import TemplateError, meta

    try:
        found = meta.find_undeclared_variables(parsed_template(template))
    except TemplateError:
        return frozenset()
    return frozenset(found) - _RESERVED


def _bad(problem: str) -> RequestError:
    return RequestError(400, "bad-inputs", f"'inputs' {problem}")
