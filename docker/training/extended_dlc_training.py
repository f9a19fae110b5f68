"""What the image adds to SageMaker's training toolkit, before and after a script. Python 3.10 runs it.

The toolkit calls `main`, which the environment variable SAGEMAKER_TRAINING_MODULE names. Before the script it reads the
Hub's token from its secret; then it calls the base's own module, or does what the toolkit does without one; and after a
good end it merges an adapter where that was asked, and says in `extended_dlc_training.json` what trained.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECORD = "extended_dlc_training.json"

BASE_MODULE = "EXTENDED_DLC_BASE_TRAINING_MODULE"
"""`module:function` of the base; empty for a base without one."""

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
"""The end of an architecture's name -> the Hub's task."""

_LOADERS = {
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
}
"""An adapter's task type -> peft's class that loads it with its base; AutoPeftModel takes those without one."""


def main() -> None:
    """Train as the base does; an error of this function is the job's reason."""
    if (arn := os.environ.get("HF_TOKEN_SECRET_ARN")) and not os.environ.get("HF_TOKEN"):
        from extended_dlc_server.machine.secret import read_token

        os.environ["HF_TOKEN"] = read_token(arn)
    _train()
    folder = Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))
    if (folder / ADAPTER).is_file():
        name_revision(folder)
    if os.environ.get("EXTENDED_DLC_MERGE_ADAPTER") == "true" and (is_first_host() or (folder / ADAPTER).is_file()):
        merge_adapter(folder)
    write_record(folder)


def _train() -> None:
    module, _, function = os.environ.get(BASE_MODULE, "").partition(":")
    if module:
        getattr(importlib.import_module(module), function or "main")()
        return
    from sagemaker_training import entry_point, environment, runner

    job = environment.Environment()
    entry_point.run(
        job.module_dir,
        job.user_entry_point,
        job.to_cmd_args(),
        job.to_env_vars(),
        runner_type=runner.ProcessRunnerType,
    )


def is_first_host() -> bool:
    """Whether this is the host of process 0, which alone saves the model of all of them; of one host it is."""
    hosts = _json(_config() / "resourceconfig.json")
    return hosts.get("current_host") == min(hosts.get("hosts") or [None])


def name_revision(folder: Path) -> None:
    """Say in an adapter's configuration which revision of its base it was made for, where its script did not."""
    configuration = _json(folder / ADAPTER)
    revision = os.environ.get("HF_MODEL_REVISION")
    is_base = configuration.get("base_model_name_or_path") == os.environ.get("HF_MODEL_ID")
    if revision and is_base and not configuration.get("revision"):
        (folder / ADAPTER).write_text(json.dumps({**configuration, "revision": revision}, indent=2))


def merge_adapter(folder: Path) -> None:
    """Put an adapter's weights into its base's, and save the whole model in the adapter's place."""
    if not (folder / ADAPTER).is_file():
        raise RuntimeError(
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
    """Say beside the weights in a folder which releases trained them, for which task, from which model."""
    configuration, adapter = _json(folder / "config.json"), _json(folder / ADAPTER)
    if not configuration and not adapter:
        return None  # a job that measures leaves no model
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
    """The job's own, as the toolkit gives them to scripts."""
    return {key: _plain(value) for key, value in _json(_config() / "hyperparameters.json").items()}


def _config() -> Path:
    return Path(os.environ.get("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"))


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
