"""Extends SageMaker's training toolkit with steps before and after the training script. Must run on Python 3.10.

The toolkit calls `main`, which the environment variable SAGEMAKER_TRAINING_MODULE names. It refuses a channel without
files, reads the Hub token from its secret, and then calls the base image's module, or without one does what the toolkit
does. After a successful training it merges an adapter, if asked for, and records releases, task and base model in
`extended_dlc_training.json`.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

RECORD = "extended_dlc_training.json"

BASE_MODULE = "EXTENDED_DLC_BASE_TRAINING_MODULE"
"""The variable with `module:function` of the base image's training module; empty for a base without one."""

ADAPTER = "adapter_config.json"

_TASKS = {
    "ForCausalLM": "text-generation",
    "ForCTC": "automatic-speech-recognition",
    "ForImageClassification": "image-classification",
    "ForMaskedLM": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForSequenceClassification": "text-classification",
    "ForSpeechSeq2Seq": "automatic-speech-recognition",
    "ForTokenClassification": "token-classification",
    "WhisperForConditionalGeneration": "automatic-speech-recognition",
}
"""Suffix of an architecture's name -> task on the Hub."""

_LOADERS = {
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
}
"""PEFT task type -> class that loads an adapter with its base model; AutoPeftModel loads adapters without a type."""


class UserError(RuntimeError):
    """An error that the message alone explains, without a traceback."""


def main() -> None:
    """Train as the base image does. An exception raised here becomes the job's failure reason.

    SageMaker shows 1,024 characters of it. The toolkit writes a traceback before the message of any exception but its
    own ClientError.
    """
    try:
        run()
    except UserError as error:
        from sagemaker_training.errors import ClientError

        raise ClientError(str(error)) from None


def run() -> None:
    """Check the channels, train, and complete what the script saved."""
    refuse_empty_channels()
    if (arn := os.environ.get("HF_TOKEN_SECRET_ARN")) and not os.environ.get("HF_TOKEN"):
        from extended_dlc_server.machine.secret import read_token

        os.environ["HF_TOKEN"] = read_token(arn)
    _train()
    folder = Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))
    if (folder / ADAPTER).is_file():
        refuse_lost_adapter(_json(folder / ADAPTER), _adapter_of_base())
        name_revision(folder)
    if os.environ.get("EXTENDED_DLC_MERGE_ADAPTER") == "true" and (is_first_host() or (folder / ADAPTER).is_file()):
        merge_adapter(folder)
    write_record(folder)


def refuse_empty_channels() -> None:
    """Raise `UserError` if the folder of a channel has no file. SageMaker makes the folder, whatever is in S3."""
    config = _config()
    channels = _json(config / "inputdataconfig.json")
    several = len(_json(config / "resourceconfig.json").get("hosts") or ()) > 1
    for name, channel in sorted(channels.items()):
        folder = config.parent / "data" / name
        piped = isinstance(channel, dict) and channel.get("TrainingInputMode") == "Pipe"
        if piped or not folder.is_dir() or any(path.is_file() for path in folder.rglob("*")):
            continue
        shared = ", or, where hosts share its objects (ShardedByS3Key), take no more hosts than objects"
        raise UserError(
            f"channel '{name}' has no file in {folder}: upload its files below the S3 prefix that the channel names, "
            f"or correct that prefix{shared if several else ''}"
        )


class _TorchOnDemand(ModuleType):
    """Stands in for torch until more than its version is asked for."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.__version__ = version("torch")

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get("torch") is self:
            del sys.modules["torch"]
        return getattr(importlib.import_module("torch"), name)


@contextmanager
def torch_on_demand() -> Iterator[None]:
    """Import torch in this process only when it is used.

    The base's module imports it for its version alone, beside the script's own process: two seconds of a CPU, at the
    start and at the end of this one (benchmarks/README.md, "A training in its container").
    """
    if "torch" not in sys.modules:
        sys.modules["torch"] = _TorchOnDemand()
    try:
        yield
    finally:
        if isinstance(sys.modules.get("torch"), _TorchOnDemand):
            del sys.modules["torch"]


class _LastLines:
    """Standard output that remembers its last lines."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.lines = stream, deque[str](maxlen=10)

    def write(self, text: str) -> Any:
        self.lines.extend(line for line in text.splitlines() if line.strip())
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def reason_of_script() -> Iterator[None]:
    """Put the script's last lines into the error of a script that failed, where the toolkit found no message in them.

    The toolkit prints what the script prints, and looks in it for Python's exceptions alone: what argparse says of a
    wrong argument, or `sys.exit("…")` at the end, would be missing in the job's failure reason.
    """
    printed = _LastLines(sys.stdout)
    sys.stdout = printed  # type: ignore[assignment]
    try:
        yield
    except Exception as error:
        if getattr(error, "output", None) == "":
            error.output = "\n".join(printed.lines)[-500:].strip()  # type: ignore[attr-defined]
        raise
    finally:
        sys.stdout = printed._stream


def _train() -> None:
    module, _, function = os.environ.get(BASE_MODULE, "").partition(":")
    if module:
        with torch_on_demand(), reason_of_script():
            getattr(importlib.import_module(module), function or "main")()
        return
    from sagemaker_training import entry_point, environment, runner

    job = environment.Environment()
    with reason_of_script():
        entry_point.run(
            job.module_dir,
            job.user_entry_point,
            job.to_cmd_args(),
            job.to_env_vars(),
            capture_error=True,
            runner_type=runner.ProcessRunnerType,
        )


def is_first_host() -> bool:
    """Whether this host runs process 0, the only one that saves the model; true for a job with one host."""
    hosts = _json(_config() / "resourceconfig.json")
    return hosts.get("current_host") == min(hosts.get("hosts") or [None])


def name_revision(folder: Path) -> None:
    """Add the base model's revision to an adapter's configuration, if the script has not set it."""
    configuration = _json(folder / ADAPTER)
    revision = os.environ.get("HF_MODEL_REVISION")
    is_base = configuration.get("base_model_name_or_path") == os.environ.get("HF_MODEL_ID")
    if revision and is_base and not configuration.get("revision"):
        (folder / ADAPTER).write_text(json.dumps({**configuration, "revision": revision}, indent=2))


def refuse_lost_adapter(saved: dict[str, Any], first: dict[str, Any]) -> None:
    """Raise `UserError` if a base that is an adapter itself would be lost.

    A script may merge that adapter and train another: peft then names the first one's base as the other's, and nothing
    has the merged weights. A script that trains the first one further saves it with the same ranks and modules.

    :param saved: The configuration of the saved adapter.
    :param first: The configuration of the adapter that is the job's base; empty for another base.
    """

    def kind(configuration: dict[str, Any]) -> list[Any]:
        modules = configuration.get("target_modules")
        modules = sorted(modules) if isinstance(modules, list) else modules
        return [configuration.get("peft_type"), configuration.get("r"), modules]

    base = saved.get("base_model_name_or_path")
    if first and base == first.get("base_model_name_or_path") and kind(saved) != kind(first):
        raise UserError(
            f"the base model is an adapter of {base}, and the script saved another adapter of {base}, to which the "
            "first would be lost: train that one further (AutoPeftModelForCausalLM.from_pretrained(…, is_trainable="
            "True)), or save the whole model (model.merge_and_unload().save_pretrained) and leave adapter= out"
        )


def _adapter_of_base() -> dict[str, Any]:
    """The configuration of the job's base model where it is an adapter: in its channel, or from the Hub's cache."""
    model = os.environ.get("HF_MODEL_ID")
    if model is None:
        return _json(_config().parent / "data" / "model" / ADAPTER)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, ADAPTER, revision=os.environ.get("HF_MODEL_REVISION"))
    return _json(Path(cached)) if isinstance(cached, str) else {}


def merge_adapter(folder: Path) -> None:
    """Merge an adapter into its base model, and save the merged model in place of the adapter."""
    if not (folder / ADAPTER).is_file():
        raise UserError(
            f"an adapter was to be merged (adapter='merged'), and the script left no {ADAPTER} in {folder}: save the "
            "peft model with trainer.save_model(os.environ['SM_MODEL_DIR']), or leave adapter= out"
        )
    import peft

    loader = getattr(peft, _LOADERS.get(_json(folder / ADAPTER).get("task_type") or "", "AutoPeftModel"))
    merged = loader.from_pretrained(str(folder)).merge_and_unload()
    with tempfile.TemporaryDirectory(dir=folder) as new:
        merged.save_pretrained(new)
        for old in folder.glob("adapter_*"):
            old.unlink()
        for file in Path(new).iterdir():
            shutil.move(str(file), folder / file.name)


def write_record(folder: Path) -> dict[str, Any] | None:
    """Record beside the weights the releases of transformers and torch, the task and the base model."""
    configuration, adapter = _json(folder / "config.json"), _json(folder / ADAPTER)
    if not configuration and not adapter:
        return None  # an evaluation job saves no model
    given = _hyperparameters()
    base = os.environ.get("HF_MODEL_ID") or given.get("model") or adapter.get("base_model_name_or_path")
    record = {
        "transformers": version("transformers"),
        "torch": version("torch").partition("+")[0],
        "task": os.environ.get("HF_TASK") or given.get("task") or _task(configuration, adapter),
        "model_type": configuration.get("model_type"),
        "base_model": base,
        "base_revision": os.environ.get("HF_MODEL_REVISION"),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return record


def _task(configuration: dict[str, Any], adapter: dict[str, Any]) -> str | None:
    if adapter.get("task_type") == "CAUSAL_LM":
        return "text-generation"
    for architecture in configuration.get("architectures") or ():
        for end, task in _TASKS.items():
            if architecture.endswith(end):
                return task
    return None


def _hyperparameters() -> dict[str, Any]:
    """Return the job's hyperparameters, decoded as the toolkit passes them to scripts."""
    return {key: _plain(value) for key, value in _json(_config() / "hyperparameters.json").items()}


def _config() -> Path:
    return Path(os.environ.get("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"))


def _plain(value: Any) -> Any:
    """Decode a hyperparameter: the SageMaker SDK encodes each as a JSON string."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
