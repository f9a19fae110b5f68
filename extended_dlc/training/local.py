"""A training on this machine: the same script with SageMaker's variables, or the same container."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from extended_dlc.decisions.training import arguments_of
from extended_dlc.options.training import HyperParameter, TrainingCode
from extended_dlc.running import run_in_view

HOST = "algo-1"

_CONTAINER = f"extended-dlc-train-{os.getpid()}"

SAVING_SECONDS = 30.0
"""How long a script may take to end after Ctrl-C; a second Ctrl-C waits no longer."""

TOKEN = "HF_TOKEN"  # noqa: S105 - the name of a variable
"""The variable with this machine's Hub token, which a container gets by its name alone: commands can be seen."""


@dataclass(frozen=True, kw_only=True)
class LocalTraining:
    """The training's script, its inputs, and the folder of its results."""

    code: TrainingCode
    hyperparameters: Mapping[str, HyperParameter] = field(default_factory=dict)
    channels: Mapping[str, Path] = field(default_factory=dict)
    """Folders of this machine that stand in for the channels."""

    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path
    """The folder of the results: `model`, `output` and `checkpoints`."""

    entry_point: str | None = None
    """Another script. Default: the training's."""

    @property
    def program(self) -> str:
        """The script that is run."""
        return self.entry_point or self.code.entry_point

    def prepare(self) -> None:
        """Create the result folders. ValueError where there is a model already; checkpoints may be there."""
        if self.folder.resolve().is_relative_to(Path(self.code.folder).resolve()):
            raise ValueError(
                f"'--output' ({self.folder}) is in the code's folder ({self.code.folder}), all of which is packed and "
                "uploaded: name a folder outside it"
            )
        try:
            for name in ("model", "output/data", "checkpoints"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"'--output' ({self.folder}) cannot be made ({error.strerror}): name a folder that you can write to"
            ) from None
        if self.has_model():
            raise ValueError(
                f"'--output' ({self.folder}) holds the model of an earlier run, with which the new one would be mixed: "
                "name another folder, or remove that one"
            )
        (self.folder / "output" / "failure").unlink(missing_ok=True)

    def has_model(self) -> bool:
        """Whether the script has saved anything as its model."""
        return any((self.folder / "model").iterdir())

    def why(self, code: int) -> str:
        """Why it failed: what was written for SageMaker, or what the exit code alone says."""
        try:
            return (self.folder / "output" / "failure").read_text("utf-8")[:1000]
        except OSError:
            pass
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return (
                "it was killed (SIGKILL), which happens most where memory runs out: take smaller batches, a smaller "
                "model, or more memory"
            )
        return "its output above says why"

    def variables(self, *, inside: bool) -> dict[str, str]:
        """The environment variables of a script (sagemaker-training, `params.py`, `environment.py`).

        :param inside: Whether it runs in a container, with SageMaker's paths.
        """
        where = Path("/opt/ml") if inside else self.folder.absolute()
        channels = {name: self._channel(name, path, inside=inside) for name, path in self.channels.items()}
        return {
            "SM_MODEL_DIR": str(where / "model"),
            "SM_OUTPUT_DIR": str(where / "output"),
            "SM_OUTPUT_DATA_DIR": str(where / "output" / "data"),
            "SM_CHANNELS": json.dumps(sorted(channels)),
            "SM_HPS": json.dumps(dict(self.hyperparameters)),
            "SM_HOSTS": json.dumps([HOST]),
            "SM_CURRENT_HOST": HOST,
            "SM_NUM_GPUS": str(_count_gpus()),
            **{f"SM_CHANNEL_{name.upper()}": path for name, path in channels.items()},
            **{f"SM_HP_{name.upper()}": value for name, value in arguments_of(self.hyperparameters).items()},
            **self.environment,
        }

    @staticmethod
    def _channel(name: str, path: Path, *, inside: bool) -> str:
        return f"/opt/ml/input/data/{name}" if inside else str(path.absolute())

    def arguments(self) -> list[str]:
        """The script's arguments in the toolkit's form: `--name value`, or `-n value` for a name of one letter."""
        return [
            part
            for name, value in arguments_of(self.hyperparameters).items()
            for part in (f"-{name}" if len(name) == 1 else f"--{name}", value)
        ]

    def run_script(self, *, stdout: int | None = None) -> int:
        """Run the script with this Python; returns its exit code.

        :param stdout: A file descriptor for what the script prints. Default: this process's own.
        """
        self.prepare()
        command = [sys.executable, self.program, *self.arguments()]
        variables = {**os.environ, **self.variables(inside=False)}
        folder = Path(self.code.folder)
        return run_in_view(command, folder=folder, environment=variables, stdout=stdout, grace=SAVING_SECONDS)

    def run_container(self, engine: str, image: str, *, stdout: int | None = None) -> int:
        """Run `IMAGE train` as SageMaker does, with this machine's folders mounted; returns the exit code."""
        self.prepare()
        try:
            return subprocess.run(self.command(engine, image), check=False, stdout=stdout).returncode  # noqa: S603 - as above
        except KeyboardInterrupt:
            subprocess.run([engine, "stop", _CONTAINER], check=False, capture_output=True)  # noqa: S603 - as above
            raise
        except OSError as error:
            raise ValueError(
                f"there is no container engine '{engine}' ({error.strerror}): install Docker, name yours in "
                "CDK_DOCKER, or take --script"
            ) from None

    def command(self, engine: str, image: str) -> list[str]:
        """The engine's command for `IMAGE train`; its input is written for it."""
        config, code = self.folder / "input" / "config", self.folder / "input" / "data" / "code"
        self._write_configuration(config)
        code.mkdir(parents=True, exist_ok=True)
        self._pack(code / "sourcedir.tar.gz")
        mounts = {
            config: "/opt/ml/input/config",
            code: "/opt/ml/input/data/code",
            **{path.absolute(): f"/opt/ml/input/data/{name}" for name, path in self.channels.items()},
        }
        results = {self.folder / name: f"/opt/ml/{name}" for name in ("model", "output", "checkpoints")}
        # the toolkit waits until the host's name can be looked up; loaders of data share more memory than engines give
        host = (f"--hostname={HOST}", f"--add-host={HOST}:127.0.0.1")
        command = [engine, "run", "--rm", f"--name={_CONTAINER}", *host, "--shm-size=2g", *_gpus(engine)]
        command += [f"--volume={source.absolute()}:{target}:ro" for source, target in mounts.items()]
        command += [f"--volume={source.absolute()}:{target}" for source, target in results.items()]
        command += [f"--env={name}={value}" for name, value in self.environment.items()]
        command += [f"--env={TOKEN}"] if TOKEN in os.environ and TOKEN not in self.environment else []
        return [*command, image, "train"]

    def _write_configuration(self, folder: Path) -> None:
        """Write `/opt/ml/input/config` in the form that the toolkit reads."""
        folder.mkdir(parents=True, exist_ok=True)
        channels = {
            name: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
            for name in (*self.channels, "code")
        }
        contents = {
            "hyperparameters": {
                **arguments_of(self.hyperparameters),
                "sagemaker_program": self.program,
                "sagemaker_submit_directory": "/opt/ml/input/data/code/sourcedir.tar.gz",
                "sagemaker_container_log_level": "20",
            },
            "inputdataconfig": channels,
            "resourceconfig": {"current_host": HOST, "hosts": [HOST], "network_interface_name": "lo"},
        }
        for name, content in contents.items():
            (folder / f"{name}.json").write_text(json.dumps(content))

    def _pack(self, archive: Path) -> None:
        with tarfile.open(archive, "w:gz") as packed:
            for path, file in self.code.files().items():
                packed.add(file, path)


def _count_gpus() -> int:
    """The number of GPUs of this machine, as the toolkit counts them (sagemaker-training, `environment.py`)."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)  # noqa: S607
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _gpus(engine: str) -> list[str]:
    """The options for all GPUs of this machine, if it has any."""
    if not _count_gpus():
        return []
    return ["--device=nvidia.com/gpu=all"] if "podman" in engine else ["--gpus=all"]
