"""What the image adds to SageMaker's training toolkit: a file beside the weights that says what trained them.

The toolkit calls `main` for the environment variable SAGEMAKER_TRAINING_MODULE. It calls the base's own module, or does
what the toolkit does without one, and writes `extended_dlc_training.json` after a good end. Python 3.10 runs it.
"""

from __future__ import annotations

import importlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECORD = "extended_dlc_training.json"

BASE_MODULE = "EXTENDED_DLC_BASE_TRAINING_MODULE"
"""`module:function` of the base; empty for a base without one."""

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
"""The end of an architecture's name -> the Hub's task."""


def main() -> None:
    """Train as the base does; the record is written where that ends well."""
    _train()
    folder = Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))
    try:
        write_record(folder)
    except OSError as error:  # the weights are what counts: a job of hours does not fail for its label
        print(f"{RECORD} was not written: {error}", flush=True)


def _train() -> None:
    from sagemaker_training import entry_point, environment, runner

    module, _, function = os.environ.get(BASE_MODULE, "").partition(":")
    if module:
        getattr(importlib.import_module(module), function or "main")()
        return
    job = environment.Environment()
    entry_point.run(
        job.module_dir,
        job.user_entry_point,
        job.to_cmd_args(),
        job.to_env_vars(),
        runner_type=runner.ProcessRunnerType,
    )


def write_record(folder: Path, hyperparameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Say beside the weights in a folder which releases trained them, for which task, from which model."""
    given = _hyperparameters() if hyperparameters is None else hyperparameters
    configuration, adapter = _json(folder / "config.json"), _json(folder / "adapter_config.json")
    record = {
        "transformers": version("transformers"),
        "torch": version("torch").partition("+")[0],
        "task": given.get("task") or _task(configuration, adapter),
        "model_type": configuration.get("model_type"),
        "base_model": given.get("base_model") or given.get("model") or adapter.get("base_model_name_or_path"),
    }
    if folder.is_dir():
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
    """The job's own, as the toolkit gives them to scripts."""
    config = Path(os.environ.get("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"))
    return {key: _plain(value) for key, value in _json(config / "hyperparameters.json").items()}


def _plain(value: Any) -> Any:
    """A hyperparameter of the SageMaker SDK is JSON in a text."""
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
