"""The training examples on a laptop, and what the training image does around a script, with tiny random models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "training"
IMAGE = ROOT / "docker" / "training"
PACKAGES = (
    *("accelerate==1.15.0", "datasets==5.2.0", "jiwer==4.0.0", "peft==0.21.2", "soundfile==0.14.0", "trl==1.16.0"),
    *("cffi==2.1.1", "dill==0.4.1", "multiprocess==0.70.19", "psutil==7.2.2", "pyarrow==26.0.1", "rapidfuzz==3.14.6"),
    "xxhash==4.1.0",
)
"""What the image's layer has beside transformers, at the releases that pip takes there today."""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(kept_packages: Callable[..., Path], models: Path) -> Run:
    """Runs a Python program with the layer's packages; its output, which is in the failure where it fails."""
    packages = kept_packages("training-datasets-5.2.0", *PACKAGES, dependencies=False)

    def run(cwd: Path, *arguments: str, **environment: str) -> str:
        path = os.pathsep.join([str(packages), str(IMAGE), *filter(None, [environment.pop("PYTHONPATH", "")])])
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def losses(output: str) -> list[float]:
    """What Trainer logged; transformers 5 writes numbers as texts."""
    return [float(each) for each in re.findall(r"'loss': '?([0-9.]+)", output)]


def train(run: Run, folder: Path, example: str, model: Path, *arguments: str) -> str:
    return run(folder, str(EXAMPLES / example / "train.py"), f"--model={model}", *arguments)


@pytest.fixture(scope="module")
def adapter(run: Run, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the LoRA example ran, and what it said."""
    folder = tmp_path_factory.mktemp("lora")
    output = train(run, folder, "causal_lm_lora", models / "bloom", "--max_steps=8", "--learning_rate=0.02")
    return folder, output


@pytest.mark.thorough
def test_the_language_model_learns_and_leaves_an_adapter(run: Run, adapter: tuple[Path, str], models: Path) -> None:
    folder, output = adapter
    found = losses(output)
    assert len(found) == 8
    assert sum(found[-2:]) < 0.95 * sum(found[:2])
    configuration = json.loads((folder / "output/causal_lm_lora/model/adapter_config.json").read_text())
    assert configuration["base_model_name_or_path"] == str(models / "bloom")
    assert (folder / "output/causal_lm_lora/model/tokenizer.json").is_file()
    assert json.loads((folder / "output/causal_lm_lora/metrics.json").read_text())["train_loss"] > 0
    # another example beside it begins anew, and not from these checkpoints
    train(run, folder, "classification", models / "bert-classifier", "--max_steps=1")


AROUND = """
import json, runpy, sys
from pathlib import Path
import extended_dlc_training as layer
evaluate, output = sys.argv[1], Path(sys.argv[2])
def measured():
    sys.argv = [evaluate, f"--model={output}", "--metrics=measured"]
    runpy.run_path(evaluate, run_name="__main__")
    return json.loads(Path("measured/metrics.json").read_text())["eval_loss"]
beside = measured()
layer.name_revision(output)
told = json.loads((output / "adapter_config.json").read_text())["revision"]
layer.merge_adapter(output)
merged, record = measured(), layer.write_record(output)
print(json.dumps([told, beside, merged, sorted(each.name for each in output.iterdir()), record]))
"""


@pytest.mark.thorough
def test_the_image_merges_an_adapter_into_a_model_that_answers_the_same(
    run: Run, adapter: tuple[Path, str], models: Path, tmp_path: Path
) -> None:
    output = adapter[0] / "output/causal_lm_lora/model"
    # the adapter's base is a folder here, which has no revisions: the name of one is passed over by transformers
    environment = {"HF_MODEL_ID": str(models / "bloom"), "HF_MODEL_REVISION": "a" * 40, "HF_TASK": "text-generation"}
    printed = run(tmp_path, "-c", AROUND, str(EXAMPLES / "causal_lm_lora/evaluate.py"), str(output), **environment)
    revision, beside, merged, files, record = json.loads(printed.splitlines()[-1])
    assert revision == "a" * 40
    assert merged == pytest.approx(beside, rel=1e-4)
    assert {"config.json", "model.safetensors", "tokenizer.json", "extended_dlc_training.json"} <= set(files)
    assert not [name for name in files if name.startswith("adapter_")]
    assert record["task"] == "text-generation"
    assert (record["base_model"], record["base_revision"]) == (str(models / "bloom"), "a" * 40)
    import transformers

    assert record["transformers"] == transformers.__version__
    assert json.loads((output / "extended_dlc_training.json").read_text()) == record


def test_a_classifier_learns_and_resumes_from_its_last_whole_checkpoint(run: Run, models: Path, tmp_path: Path) -> None:
    arguments = ("--learning_rate=0.01", "--save_steps=4")
    train(run, tmp_path, "classification", models / "bert-classifier", "--max_steps=4", *arguments)
    output = tmp_path / "output/classification"
    (output / "checkpoints/checkpoint-90").mkdir()  # a container that was stopped while it saved
    printed = train(run, tmp_path, "classification", models / "bert-classifier", "--max_steps=9", *arguments)
    assert len(losses(printed)) == 5  # of nine steps four were made before
    assert f"goes on from {Path('output/classification/checkpoints/checkpoint-4')}\n" in printed
    assert json.loads((output / "model/config.json").read_text())["id2label"] == {"0": "NEGATIVE", "1": "POSITIVE"}
    metrics = json.loads((output / "metrics.json").read_text())
    assert 0 <= metrics["eval_accuracy"] <= 1
    assert metrics["eval_loss"] > 0


@pytest.mark.thorough
def test_whisper_learns_from_the_folders_of_a_job(run: Run, models: Path, tmp_path: Path) -> None:
    import wave

    data = tmp_path / "data"
    data.mkdir()
    for name in ("one", "two"):
        with wave.open(str(data / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(b"\1\0" * 8000)
    rows = [{"file_name": f"{name}.wav", "text": name} for name in ("one", "two")]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    environment = {
        "SM_CHANNEL_TRAIN": str(data),
        "SM_CHANNEL_MODEL": str(models / "whisper"),
        "SM_MODEL_DIR": str(tmp_path / "model"),
        "SM_OUTPUT_DATA_DIR": str(tmp_path / "measured"),
    }
    script = str(EXAMPLES / "whisper/train.py")
    arguments = ("--max_steps=3", "--generation_max_length=12", f"--checkpoints={tmp_path / 'checkpoints'}")
    printed = run(tmp_path, script, *arguments, "--learning_rate=0.01", **environment)
    found = losses(printed)
    assert found[-1] < found[0]
    metrics = json.loads((tmp_path / "measured/metrics.json").read_text())
    assert metrics["eval_wer"] >= 0
    assert (tmp_path / "model/model.safetensors").is_file()


BASE = """
from pathlib import Path
def main():
    import os
    Path(os.environ["SM_MODEL_DIR"], "config.json").write_text(os.environ["CONFIGURATION"])
"""


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("OddForSomething", None),
    ],
)
def test_what_trained_is_written_beside_the_weights_of_any_script(
    run: Run, tmp_path: Path, architecture: str, task: str | None
) -> None:
    (tmp_path / "base_module.py").write_text(BASE)
    (tmp_path / "hyperparameters.json").write_text(json.dumps({"model": '"bert-base"', "epochs": "3"}))
    run(
        tmp_path,
        "-c",
        "import extended_dlc_training; extended_dlc_training.main()",
        PYTHONPATH=str(tmp_path),
        EXTENDED_DLC_BASE_TRAINING_MODULE="base_module:main",
        CONFIGURATION=json.dumps({"model_type": "some", "architectures": [architecture]}),
        SM_MODEL_DIR=str(tmp_path),
        SM_INPUT_CONFIG_DIR=str(tmp_path),
    )
    record = json.loads((tmp_path / "extended_dlc_training.json").read_text())
    assert (record["task"], record["base_model"], record["model_type"]) == (
        task,
        "bert-base",
        "some",
    )


def test_a_channel_without_a_file_is_refused_before_the_script_starts(tmp_path: Path) -> None:
    (tmp_path / "base_module.py").write_text("def main(): print('the script ran')")
    # the toolkit writes the message of this class, and of no other, without a traceback into the failure's reason
    (tmp_path / "sagemaker_training").mkdir()
    (tmp_path / "sagemaker_training" / "errors.py").write_text("class ClientError(Exception): pass")
    config = tmp_path / "config"
    config.mkdir()
    channels = {name: {"TrainingInputMode": "File"} for name in ("filled", "train")}
    (config / "inputdataconfig.json").write_text(json.dumps(channels | {"piped": {"TrainingInputMode": "Pipe"}}))
    (tmp_path / "data" / "piped").mkdir(parents=True)
    (tmp_path / "data" / "filled" / "inside").mkdir(parents=True)
    (tmp_path / "data" / "filled" / "inside" / "one.jsonl").touch()
    (tmp_path / "data" / "train" / "inside").mkdir(parents=True)
    (tmp_path / "model").mkdir()

    def start() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", "import extended_dlc_training; extended_dlc_training.main()"],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(tmp_path), str(IMAGE)]),
                "EXTENDED_DLC_BASE_TRAINING_MODULE": "base_module:main",
                "SM_INPUT_CONFIG_DIR": str(config),
                "SM_MODEL_DIR": str(tmp_path / "model"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr.strip().rpartition("\n")[2]

    code, printed = start()
    assert code == 1
    assert printed.startswith(
        f"sagemaker_training.errors.ClientError: channel 'train' has no file in {tmp_path}/data/train: upload"
    )
    assert "ShardedByS3Key" not in printed
    (config / "resourceconfig.json").write_text(json.dumps({"hosts": ["algo-1", "algo-2"]}))
    assert "no more hosts than objects" in start()[1]
    (tmp_path / "data" / "train" / "one.jsonl").touch()
    assert start() == (0, "the script ran\n")


TOOLKIT = """
import subprocess, sys
class ExecuteUserScriptError(Exception):
    def __init__(self, output): self.output = output
    def __str__(self): return f"ErrorMessage {self.output!r}"
def main():
    # as process.py of the toolkit, which is compiled where it is installed: lines from the first that has the name of
    # an exception are the message
    done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = []
    for line in done.stdout.strip().split("\\n"):
        print(line)
        if found or "ValueError" in line: found.append(line)
    if done.returncode: raise ExecuteUserScriptError("\\n".join(found))
"""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; print('step 1'); sys.exit('no column text')", "ErrorMessage 'step 1\\nno column text'"),
        (
            "import argparse; argparse.ArgumentParser(prog='train.py', usage='').parse_args(['--wrong', '1'])",
            "ErrorMessage 'usage: \\ntrain.py: error: unrecognized arguments: --wrong 1'",
        ),
        ("print('step 1'); raise ValueError('its own')", "ErrorMessage 'ValueError: its own'"),
        ("print('one', 'two ' * 1000); raise SystemExit(3)", f"ErrorMessage '{('two ' * 125).strip()}'"),
        ("print('done')", "ended well"),
    ],
)
def test_a_script_that_ends_without_an_exception_gives_the_failure_its_last_lines(
    tmp_path: Path, script: str, reason: str
) -> None:
    (tmp_path / "base_module.py").write_text(TOOLKIT)
    program = (
        "import extended_dlc_training as layer\nwith layer.reason_of_script():\n import base_module; base_module.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint('ended well')", "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(IMAGE)])},
        capture_output=True,
        text=True,
        check=False,
    )
    said = (done.stderr or done.stdout).strip().splitlines()[-1]
    assert said.removeprefix("base_module.ExecuteUserScriptError: ") == reason


def test_the_base_module_gets_torchs_version_without_torch_and_the_rest_with_it(run: Run, tmp_path: Path) -> None:
    printed = run(
        tmp_path,
        "-c",
        "import sys, extended_dlc_training as layer\n"
        "with layer.torch_on_demand():\n"
        " import torch\n"
        " print(torch.__version__, 'torch._C' in sys.modules)\n"
        " import torch.nn.functional\n"
        " print(torch.ones(2).sum().item(), torch.nn.functional.relu(torch.tensor(-1.0)).item())\n"
        "real = torch\n"
        "import torch\n"
        "print(torch.__version__ == real.__version__, hasattr(torch, '_C'))\n"
        "with layer.torch_on_demand(): import torch as same\n"
        "print(same is torch)",
    )
    first, *others = printed.splitlines()
    assert first.endswith(" False")
    assert others == ["2.0 0.0", "True True", "True"]


def test_an_adapter_that_was_asked_for_and_is_not_there_fails_the_job_and_a_measurement_leaves_no_record(
    run: Run, tmp_path: Path
) -> None:
    printed = run(
        tmp_path,
        "-c",
        "import extended_dlc_training as layer, pathlib\n"
        "print(layer.write_record(pathlib.Path('.')))\n"
        "try:\n layer.merge_adapter(pathlib.Path('.'))\n"
        "except RuntimeError as error: print(error)",
    )
    assert printed.startswith("None\n")
    assert "the script left no adapter_config.json" in printed
    assert "leave adapter= out" in printed
    assert list(tmp_path.iterdir()) == []


BASE_WITH_ADAPTER = """
import json, os
from pathlib import Path
def main():
    Path(os.environ["SM_MODEL_DIR"], "adapter_config.json").write_text(os.environ["SAVED"])
"""


@pytest.mark.parametrize(
    ("saved", "lost"),
    [
        ({"r": 8}, False),  # the first one, trained further
        ({"r": 16}, True),
        ({"target_modules": ["q", "v", "o"]}, True),
        ({"r": 16, "base_model_name_or_path": "/tmp/merged"}, False),
    ],
)
@pytest.mark.parametrize("where", ["channel", "Hub"])
def test_an_adapter_on_a_merged_adapter_is_not_saved_alone(
    tmp_path: Path, saved: dict[str, object], lost: bool, where: str
) -> None:
    first = {"peft_type": "LORA", "r": 8, "target_modules": ["q", "v"], "base_model_name_or_path": "me/base"}
    (tmp_path / "base_module.py").write_text(BASE_WITH_ADAPTER)
    (tmp_path / "sagemaker_training").mkdir()
    (tmp_path / "sagemaker_training" / "errors.py").write_text("class ClientError(Exception): pass")
    commit = "0" * 40
    snapshot = tmp_path / "hub" / "models--me--adapter" / "snapshots" / commit
    folder = snapshot if where == "Hub" else tmp_path / "input" / "data" / "model"
    for each in (folder, tmp_path / "input" / "config", tmp_path / "model"):
        each.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(first))
    base = {"HF_MODEL_ID": "me/adapter", "HF_MODEL_REVISION": commit, "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", "import extended_dlc_training; extended_dlc_training.main()"],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SM_"))},
            **(base if where == "Hub" else {}),
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(IMAGE)]),
            "EXTENDED_DLC_BASE_TRAINING_MODULE": "base_module:main",
            "SM_INPUT_CONFIG_DIR": str(tmp_path / "input" / "config"),
            "SM_MODEL_DIR": str(tmp_path / "model"),
            "SAVED": json.dumps({**first, "target_modules": ["v", "q"], **saved}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == lost, done.stderr
    assert ("saved another adapter of me/base, to which the first would be lost: train that" in done.stderr) == lost


def test_of_several_hosts_the_first_alone_is_asked_for_the_adapter(run: Run, tmp_path: Path) -> None:
    program = "import extended_dlc_training as layer; print(layer.is_first_host())"
    answers = []
    for current in ("algo-1", "algo-2", None):
        hosts = {"current_host": current, "hosts": ["algo-1", "algo-2"]} if current else {}
        (tmp_path / "resourceconfig.json").write_text(json.dumps(hosts))
        answers.append(run(tmp_path, "-c", program, SM_INPUT_CONFIG_DIR=str(tmp_path)).strip())
    assert answers == ["True", "False", "True"]
