"""Reads the container's environment variables once, into one frozen dataclass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import StartError
from .files.complete import ADAPTER_CONFIG, names_in, why_no_model
from .machine.secret import ARN as SECRET_ARN

MEGABYTE = 1024 * 1024
DAY = 24 * 3600
"""Seconds of a day: no deadline is longer, nor any sound."""

STUCK_SECONDS = 120
"""How much longer than its deadline an inference may take before the process ends."""

MOST_ADAPTERS = 32
"""How many adapters may be served beside a model: each takes memory, and a share of that for keys and values."""

_NAMESPACE = re.compile(r"(?!AWS/)[\w./#:-]{1,255}", re.ASCII)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
"""The id of a repository on the Hub."""

ADAPTER_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_ADAPTER = re.compile(rf"({ADAPTER_NAME.pattern})=([A-Za-z0-9][\w.-]*(?:/[\w.-]+)?)(?:@([\w./-]+))?", re.ASCII)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class HubAdapter:
    """An adapter on the Hub that is served beside the model."""

    name: str
    model_id: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The server's settings. `README.md` describes the variables for users."""

    port: int = 8080
    """`SAGEMAKER_BIND_TO_PORT`, where the server listens. Default: 8080."""

    model_folder: Path = Path("/opt/ml/model")
    """`$SAGEMAKER_BASE_DIR/model`, where SageMaker puts the model's files. Default: `/opt/ml/model`."""

    model_id: str | None = None
    """`HF_MODEL_ID`, the Hub model to load when the folder holds no model."""

    revision: str | None = None
    """`HF_MODEL_REVISION`, a branch, tag or commit on the Hub. Default: the repository's main branch."""

    task: str | None = None
    """`HF_TASK`, the pipeline's task. Default: inferred from the model's `config.json`."""

    token: str | None = field(default=None, repr=False)
    """`HF_TOKEN`, or the stock image's `HF_API_TOKEN`, for private and gated models. Never logged, not in `repr`."""

    token_secret_arn: str | None = None
    """`HF_TOKEN_SECRET_ARN`, a secret of AWS Secrets Manager that holds the token, read once at start."""

    trust_remote_code: bool = False
    """`HF_TRUST_REMOTE_CODE`, whether Python files in the model's repository may run. Default: no."""

    max_body_bytes: int = 25 * MEGABYTE
    """`EXTENDED_DLC_MAX_BODY_MB`, the largest request body. Default: 25, SageMaker's limit for real-time endpoints."""

    max_audio_seconds: int = 3600
    """`EXTENDED_DLC_MAX_AUDIO_SECONDS`, the longest decoded audio of one request. Default: one hour."""

    queue_length: int = 64
    """`EXTENDED_DLC_QUEUE_LENGTH`, how many requests may wait behind the running one. Default: 64."""

    batch_size: int = 16
    """`EXTENDED_DLC_BATCH_SIZE`, the most requests that run as one batch. Default: 16; 1 turns batching off."""

    texts_at_once: int = 32
    """The same limit for text generation, whose requests share decoding steps but no parameters. Default: 32."""

    dtype: str = "auto"
    """`EXTENDED_DLC_DTYPE`, the precision of the model: float32, bfloat16 or float16. Default: the device decides."""

    metrics_namespace: str | None = None
    """`EXTENDED_DLC_METRICS_NAMESPACE`, the CloudWatch namespace of the log's metrics. Default: no metrics."""

    max_input_tokens: int | None = None
    """`EXTENDED_DLC_MAX_INPUT_TOKENS`, the longest input of one request. Default: the model's number of positions."""

    max_new_tokens: int = 8192
    """`EXTENDED_DLC_MAX_NEW_TOKENS`, the most tokens that one request may generate. Default: 8192."""

    answer_seconds: int = 60
    """`EXTENDED_DLC_ANSWER_SECONDS`, the deadline of a response that is not streamed. Default: 60, the timeout of
    SageMaker's real-time and serverless endpoints."""

    stream_seconds: int = 480
    """`EXTENDED_DLC_STREAM_SECONDS`, the deadline of a streamed response. Default: 480, SageMaker's longest."""

    request_seconds: int = 600
    """`EXTENDED_DLC_REQUEST_SECONDS`, after which an inference counts as stuck and the process ends: the last resort
    for code that checks no deadline. Default: two minutes more than the longer of the two deadlines above."""

    body_seconds: int = 120
    """`EXTENDED_DLC_BODY_SECONDS`, in which the body of a request must arrive. Default: 120."""

    program: str = "inference.py"
    """`SAGEMAKER_PROGRAM`, the user's module in `code/` of the model folder. Default: `inference.py`, if it exists."""

    allow_incomplete: bool = False
    """`EXTENDED_DLC_ALLOW_INCOMPLETE`, whether to serve a model that lacks weights, its tokenizer or its adapter.
    Default: no, the start fails."""

    adapters: tuple[HubAdapter, ...] = ()
    """`EXTENDED_DLC_ADAPTERS`, LoRA adapters on the Hub that requests may pick by name, beside those in `adapters/` of
    the model folder. Default: none."""

    install_requirements: bool = True
    """`EXTENDED_DLC_INSTALL_REQUIREMENTS`, whether pip installs `code/requirements.txt` at start. Default: yes."""

    @property
    def served_name(self) -> str:
        """The model's name in responses: its Hub id, or `model`."""
        return self.model_id or "model"

    @property
    def program_file(self) -> Path | None:
        """The user's module, if there is one."""
        file = self.model_folder / "code" / self.program
        return file if file.is_file() else None

    @property
    def requirements_file(self) -> Path | None:
        """The requirements file that pip installs at start, if there is one."""
        file = self.model_folder / "code" / "requirements.txt"
        return file if file.is_file() and self.install_requirements else None

    @property
    def model_folder_holds_a_model(self) -> bool:
        """Whether the model archive holds a model; an archive with code only has no `config.json`."""
        return (self.model_folder / "config.json").is_file()

    @property
    def model_folder_holds_an_adapter(self) -> bool:
        """Whether the model archive holds a PEFT adapter, which is applied to a base model."""
        return (self.model_folder / ADAPTER_CONFIG).is_file()

    @property
    def model_source(self) -> str:
        """The argument of `from_pretrained`: the folder if it holds a model, otherwise the Hub id."""
        if self.model_folder_holds_a_model:
            return str(self.model_folder)
        if self.model_id is None:
            if self.model_folder_holds_an_adapter:
                return str(self.model_folder)
            names = names_in(self.model_folder)
            if names and (why := why_no_model(names, str(self.model_folder))):
                raise StartError(f"no model to serve: {why}")
            raise StartError(
                f"no model to serve: {self.model_folder} holds no config.json and HF_MODEL_ID is not set. "
                "Set HF_MODEL_ID to a Hub model such as 'bigscience/bloom-560m', or deliver a model archive"
            )
        return self.model_id


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Parse the environment; raise one `StartError` that lists all invalid variables."""
    problems: list[str] = []
    read = _Reader(environment, problems)
    folder = Path(environment.get("SAGEMAKER_BASE_DIR") or "/opt/ml") / "model"
    answer_seconds = read.whole_number("EXTENDED_DLC_ANSWER_SECONDS", default=Settings.answer_seconds, most=DAY)
    stream_seconds = read.whole_number("EXTENDED_DLC_STREAM_SECONDS", default=Settings.stream_seconds, most=DAY)
    megabytes = read.whole_number("EXTENDED_DLC_MAX_BODY_MB", default=Settings.max_body_bytes // MEGABYTE, most=1024)
    batch_size = read.whole_number("EXTENDED_DLC_BATCH_SIZE", default=Settings.batch_size, most=1024)
    settings = Settings(
        port=read.whole_number("SAGEMAKER_BIND_TO_PORT", default=Settings.port, most=65535),
        model_folder=folder,
        model_id=read.hub_id("HF_MODEL_ID", folder),
        revision=read.text("HF_MODEL_REVISION"),
        task=read.text("HF_TASK"),
        token=read.text("HF_TOKEN") or read.text("HF_API_TOKEN"),
        token_secret_arn=read.secret_arn("HF_TOKEN_SECRET_ARN"),
        trust_remote_code=read.yes_or_no("HF_TRUST_REMOTE_CODE"),
        max_body_bytes=MEGABYTE * megabytes,
        max_audio_seconds=read.whole_number(
            "EXTENDED_DLC_MAX_AUDIO_SECONDS", default=Settings.max_audio_seconds, most=DAY
        ),
        batch_size=batch_size,
        texts_at_once=batch_size if read.text("EXTENDED_DLC_BATCH_SIZE") else Settings.texts_at_once,
        dtype=read.one_of("EXTENDED_DLC_DTYPE", ("auto", "float32", "bfloat16", "float16")),
        metrics_namespace=read.namespace("EXTENDED_DLC_METRICS_NAMESPACE"),
        max_input_tokens=read.whole_number("EXTENDED_DLC_MAX_INPUT_TOKENS", default=0, most=10_000_000) or None,
        max_new_tokens=read.whole_number(
            "EXTENDED_DLC_MAX_NEW_TOKENS", default=Settings.max_new_tokens, most=10_000_000
        ),
        answer_seconds=answer_seconds,
        stream_seconds=stream_seconds,
        request_seconds=read.whole_number(
            "EXTENDED_DLC_REQUEST_SECONDS",
            default=max(answer_seconds, stream_seconds) + STUCK_SECONDS,
            most=DAY,
        ),
        body_seconds=read.whole_number("EXTENDED_DLC_BODY_SECONDS", default=Settings.body_seconds, most=3600),
        program=read.program("SAGEMAKER_PROGRAM", folder / "code", default=Settings.program),
        adapters=read.adapters("EXTENDED_DLC_ADAPTERS"),
        allow_incomplete=read.yes_or_no("EXTENDED_DLC_ALLOW_INCOMPLETE"),
        install_requirements=read.yes_or_no("EXTENDED_DLC_INSTALL_REQUIREMENTS", default=True),
        queue_length=read.whole_number("EXTENDED_DLC_QUEUE_LENGTH", default=Settings.queue_length, most=10_000),
    )
    if problems:
        raise StartError("the environment is not valid:\n  " + "\n  ".join(problems))
    return settings


class _Reader:
    """Reads variables one by one and collects the problems. An empty variable counts as unset."""

    def __init__(self, environment: Mapping[str, str], problems: list[str]) -> None:
        self._environment = environment
        self._problems = problems

    def text(self, name: str) -> str | None:
        return self._environment.get(name, "").strip() or None

    def whole_number(self, name: str, *, default: int, most: int) -> int:
        """Return a number from 1 to `most`."""
        value = self.text(name)
        if value is None:
            return default
        if re.fullmatch(r"[0-9]{1,9}", value) and 1 <= int(value) <= most:
            return int(value)
        self._problems.append(f"{name} ('{value}') must be a whole number from 1 to {most}")
        return default

    def yes_or_no(self, name: str, *, default: bool = False) -> bool:
        value = (self.text(name) or str(default)).lower()
        if value not in _TRUE + _FALSE:
            self._problems.append(f"{name} ('{value}') must be 'true' or 'false'")
        return value in _TRUE

    def one_of(self, name: str, values: tuple[str, ...]) -> str:
        """Return the variable's value, by default the first of `values`."""
        value = self.text(name) or values[0]
        if value not in values:
            self._problems.append(f"{name} ('{value}') must be one of: {', '.join(values)}")
        return value

    def program(self, name: str, folder: Path, *, default: str) -> str:
        value = self.text(name)
        if value is None:
            return default
        file = value if value.endswith(".py") else f"{value}.py"
        if not re.fullmatch(r"[A-Za-z_]\w*\.py", file):
            self._problems.append(f"{name} ('{value}') must be the name of a Python file, such as 'inference.py'")
        elif not (folder / file).is_file():
            self._problems.append(f"{name} ('{value}') is not in {folder}: put it into the model archive below code/")
        return file

    def secret_arn(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not SECRET_ARN.fullmatch(value):
            # The value stays out of the message: it may be the token, set here by mistake.
            self._problems.append(
                f"{name} must be the ARN of a secret (arn:aws:secretsmanager:…), and its value is none"
            )
        return value

    def namespace(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not _NAMESPACE.fullmatch(value):
            self._problems.append(
                f"{name} ('{value}') must be a CloudWatch namespace: at most 255 letters, digits and . - _ / # :"
            )
        return value

    def adapters(self, name: str) -> tuple[HubAdapter, ...]:
        value = self.text(name)
        if value is None:
            return ()
        parsed = [_ADAPTER.fullmatch(one.strip()) for one in value.split(",")]
        found = [HubAdapter(name=one[1], model_id=one[2], revision=one[3]) for one in parsed if one]
        if None in parsed or len(found) > MOST_ADAPTERS or len({one.name for one in found}) < len(found):
            self._problems.append(
                f"{name} ('{value[:100]}') must be at most {MOST_ADAPTERS} adapters of different names, such as "
                "'sql=someone/sql-lora, poems=someone/poems-lora@main'"
            )
        return tuple(found)

    def hub_id(self, name: str, folder: Path) -> str | None:
        value = self.text(name)
        if value is None or value.rstrip("/") == str(folder):
            return None
        if not HUB_ID.fullmatch(value):
            self._problems.append(f"{name} ('{value}') must be a Hub id such as 'bigscience/bloom-560m', or {folder}")
        return value
