"""What is wrong with a training before anything runs: scripts, arguments, instances, memory, schedules, settings."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Stack
from aws_cdk import aws_s3 as s3

from extended_dlc.decisions.asked import ModelAsked
from extended_dlc.decisions.found import Found, Refusal
from extended_dlc.decisions.script import arguments_of, check_hyperparameters
from extended_dlc.decisions.training import TrainingAsked, decide_training
from extended_dlc.decisions.training_fit import fit_training
from extended_dlc.facts.models import ModelFacts, know_model
from extended_dlc.facts.training_instances import all_training_instances, find_training_instance
from extended_dlc.options._schedules import check_schedule
from extended_dlc.options.training import (
    EvaluationGate,
    S3Data,
    TrainingCode,
    TrainingInstances,
    TrainingSchedule,
)
from extended_dlc.training.local import LocalTraining
from tests.support.settings import decided

ROOT = Path(__file__).parents[2]
SEVEN_BILLION = ModelFacts(model_id="me/seven", model_type="llama", parameters=7_000_000_000)


def code_of(folder: Path, script: str, **others: str) -> TrainingCode:
    (folder / "train.py").write_text(textwrap.dedent(script))
    for name, content in others.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(content))
    return TrainingCode(str(folder))


# -- the code ----------------------------------------------------------------------------------------------------------


def test_a_missing_entry_point_is_told_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "trains.py").write_text("")
    with pytest.raises(ValueError, match=r"'entry_point' \(train.py\) is not in .*: it has trains.py; did you mean"):
        TrainingCode(str(tmp_path))
    with pytest.raises(ValueError, match=r"'folder' \(/nowhere\) is not a folder: correct the path"):
        TrainingCode("/nowhere")
    (tmp_path / "train.sh").write_text("accelerate launch trains.py")
    with pytest.raises(ValueError, match=r"'entry_point' \(train.sh\) is not a Python script: start it from one, as"):
        TrainingCode(str(tmp_path), entry_point="train.sh")
    (tmp_path / "my train.py").write_text("")
    with pytest.raises(ValueError, match=r"'entry_point' \(my train.py\) is a name that SageMaker's toolkit refuses"):
        TrainingCode(str(tmp_path), entry_point="my train.py")


def test_a_script_that_does_not_compile_is_not_deployed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train.py line 1 does not compile"):
        code_of(tmp_path, "def train(:")


def test_code_is_code_and_neither_data_nor_weights(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"\0" * (20 * 1024 * 1024 + 1))
    with pytest.raises(ValueError, match=r"holds 21 MB and code at most 21: put data into a channel"):
        code_of(tmp_path, "")


def test_hidden_files_and_caches_are_not_packed(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "train.pyc").write_text("")
    assert list(code_of(tmp_path, "").files()) == ["train.py"]


# -- the script's arguments --------------------------------------------------------------------------------------------

ARGPARSE = """
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", "-e", type=int)
    parser.add_argument("--learning_rate", type=float)
    args = parser.parse_args()
"""
RULES = """
    import argparse
    kinds = argparse.ArgumentParser()
    kinds.add_argument("-r", "--rank", type=int, required=True)
    kinds.add_argument("--optim", choices=["adamw", "sgd"], default="sgd")
    kinds.add_argument("--levels", type=int, choices=(1, 2))
    kinds.add_argument("--rate", type=float)
    kinds.add_argument("--packing", action="store_true")
    kinds.add_argument("--layers", type=int, nargs="+")
    kinds.parse_args()
"""
HF = """
    from dataclasses import dataclass
    from transformers import HfArgumentParser, TrainingArguments
    from options import Data
    @dataclass
    class Model:
        model_name: str = "x"
    parser = HfArgumentParser((Model, Data, TrainingArguments))
    parser.parse_args_into_dataclasses()
"""
DATA = """
    from dataclasses import dataclass
    @dataclass
    class Base:
        column: str = "text"
    @dataclass
    class Data(Base):
        max_length: int = 5
"""


@pytest.mark.parametrize("good", ["epochs", "e", "learning_rate", "learn"])
def test_an_argument_of_the_parser_passes_also_by_its_beginning(tmp_path: Path, good: str) -> None:
    check_hyperparameters(code_of(tmp_path, ARGPARSE), "train.py", {good: 1}, transformers=None)


@pytest.mark.parametrize(
    ("example", "script"),
    [(each.parent.name, each.name) for each in sorted((ROOT / "examples" / "training").glob("*/*.py"))],
)
def test_the_arguments_of_each_example_are_known(example: str, script: str) -> None:
    code = TrainingCode(str(ROOT / "examples" / "training" / example))
    with pytest.raises(ValueError, match=f"'epoch_number' is no argument of {script}"):
        check_hyperparameters(code, script, {"epoch_number": 1}, transformers=None)


@pytest.mark.parametrize("wrong", ["epoch_number", "lr", "learning-rate"])
def test_an_argument_that_no_parser_has_would_end_the_script(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"'{wrong}' is no argument of train.py"):
        check_hyperparameters(code_of(tmp_path, ARGPARSE), "train.py", {wrong: 1}, transformers=None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "'rank' is required by train.py: give it, or a default in the parser"),
        ({"rank": "eight"}, r"'rank' \(eight\) must be a whole number, which the script's parser reads"),
        ({"rank": 8.5}, r"'rank' \(8.5\) must be a whole number"),
        ({"rank": 8, "optim": "adam"}, r"'optim' \(adam\) must be adamw, sgd; did you mean 'adamw'\?"),
        ({"r": 8, "levels": 3}, r"'levels' \(3\) must be 1, 2"),
        ({"rank": 8, "rat": "fast"}, r"'rate' \(fast\) must be a number"),
        ({"rank": 8, "packing": True}, r"'packing' takes no value .* a job gives one \(--packing true\): let it read"),
        ({"ran": 8, "optim": "sgd", "levels": 2, "rate": 1e-4, "layers": 3}, None),
        ({"rank": 8, "layers": "1 2"}, r"'layers' \(1 2\) must be a whole number.*; a job gives .* one value, so let"),
    ],
)
def test_a_value_that_the_parser_would_reject_is_refused(
    tmp_path: Path, given: dict[str, Any], says: str | None
) -> None:
    code = code_of(tmp_path, RULES)
    if says is None:
        check_hyperparameters(code, "train.py", given, transformers=None)
        code = code_of(tmp_path, f"{RULES}    other = argparse.ArgumentParser()\n")
        check_hyperparameters(code, "train.py", {"rank": "of the other"}, transformers=None)
        return
    with pytest.raises(ValueError, match=says):
        check_hyperparameters(code, "train.py", given, transformers=None)


@pytest.mark.parametrize("good", ["model_name", "column", "max_length", "max-length", "num_train_epochs", "no_bf16"])
def test_the_fields_of_dataclasses_and_of_trainer_are_arguments(tmp_path: Path, good: str) -> None:
    check_hyperparameters(code_of(tmp_path, HF, options=DATA), "train.py", {good: 1}, transformers="5.24.0")


def test_a_field_that_another_release_had_is_told_so(tmp_path: Path) -> None:
    code = code_of(tmp_path, HF, options=DATA)
    check_hyperparameters(code, "train.py", {"evaluation_strategy": "no"}, transformers="4.46.3")
    check_hyperparameters(code, "train.py", {"evaluation_strategy": "no"}, transformers=None)
    said = r"'evaluation_strategy' is no argument of TrainingArguments in transformers 5.24.0, and was one of another"
    with pytest.raises(ValueError, match=said):
        check_hyperparameters(code, "train.py", {"evaluation_strategy": "no"}, transformers="5.24.0")
    with pytest.raises(ValueError, match=r"'lr' could be lr_scheduler_kwargs, lr_scheduler_type: write the one"):
        check_hyperparameters(code, "train.py", {"lr": 1}, transformers="5.24.0")


ARGPARSE_SCRIPTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "flags": (
        "p.add_argument('--fp16', action='store_true')\n"
        "p.add_argument('--packing', action=argparse.BooleanOptionalAction)\n"
        "p.add_argument('--rate', type=float)",
        [{"fp16": True}, {"packing": True}, {"no-packing": True}, {"rate": "x"}, {"rate": 1e-05}, {"rate": 3}],
    ),
    "letters": (
        "p.add_argument('-e', '--epochs', type=int)\np.add_argument('--k', type=int)\np.add_argument('-lr')",
        [{"e": 3}, {"e": "x"}, {"epoch": 2}, {"k": 1}, {"lr": 1}, {"epochs": 3.0}],
    ),
    "several values": (
        "p.add_argument('--layers', type=int, nargs='+')\np.add_argument('--betas', type=float, nargs=2)\n"
        "p.add_argument('--maybe', nargs='?')\np.add_argument('rest', nargs='*')",
        [{"layers": "1 2"}, {"layers": 3}, {"betas": 0.9}, {"maybe": "x"}, {}],
    ),
    "positional": ("p.add_argument('model')\np.add_argument('--rate')", [{}, {"rate": 1}, {"model": "x"}]),
    "choices": (
        "p.add_argument('--kind', type=str.lower, choices=['a', 'b'])\n"
        "p.add_argument('--bits', type=int, choices=[4, 8])\np.add_argument('--share', type=float, choices=[0.5, 1])\n"
        "p.add_argument('--low', choices=('true', 'false'))\np.add_argument('--High', choices=('True', 'False'))",
        [{"kind": "A"}, {"bits": 4}, {"bits": "04"}, {"bits": 5}, {"share": "1.0"}, {"low": True}, {"High": True}],
    ),
    "negative values": (
        "p.add_argument('--rate', type=float)\np.add_argument('--text')",
        [{"rate": -1}, {"rate": -0.00001}, {"rate": "-1e-5"}, {"text": "-a"}, {"text": "-a b"}, {"text": "-"}],
    ),
    "a parser of a function": (
        "def add(q):\n    q.add_argument('--rate', type=float, required=True)\nadd(p)",
        [{"rate": 1}, {}, {"rates": 1}],
    ),
    "a group": (
        "g = p.add_argument_group('data')\ng.add_argument('--column', required=True)",
        [{"column": "x"}, {"columns": "x"}, {}],
    ),
    "the later of two": (
        "p = argparse.ArgumentParser(conflict_handler='resolve')\n"
        "p.add_argument('--rate', type=int)\np.add_argument('--rate', type=float)",
        [{"rate": 0.5}],
    ),
    "no abbreviations": (
        "p = argparse.ArgumentParser(allow_abbrev=False)\np.add_argument('--rate')",
        [{"rat": 1}, {"rate": 1}],
    ),
    "rules under a condition": (
        "import sys\nif len(sys.argv) > 9:\n    p.add_argument('--rate', type=int, required=True)\n"
        "try:\n    p.add_argument('--kind', choices=['a'])\nexcept ValueError:\n    pass",
        [{}, {"kind": "a"}, {"other": 1}],
    ),
    "a rule that is changed": (
        "a = p.add_argument('--rate', type=int, required=True)\na.required = False\na.type = float",
        [{}, {"rate": 0.5}, {"rates": 1}],
    ),
    "a type of the script": (
        "def int(x):\n    return x\np.add_argument('--rate', type=int)",
        [{"rate": "x"}, {"rates": "x"}],
    ),
    "what is left over": (
        "p.add_argument('--rate')\np.add_argument('rest', nargs=argparse.REMAINDER)",
        [{"rate": 1}, {"other": 1}, {}],
    ),
    "a parser of an object": (
        "class Job:\n    def __init__(self):\n        self.parser = argparse.ArgumentParser()\n"
        "        self.add(self.parser)\n        self.parser.parse_args()\n"
        "    def add(self, q):\n        q.add_argument('--rate', type=float)\nJob()\nraise SystemExit(0)",
        [{"rate": 1}, {"other": 1}],
    ),
    "a parser that a function makes": (
        "def make():\n    q = argparse.ArgumentParser()\n    q.add_argument('--rate', type=float)\n    return q\n"
        "made = make()\nmade.parse_args()\nraise SystemExit(0)",
        [{"rate": 1}, {"rate": "x"}, {"other": 1}],
    ),
    "a subcommand": (
        "s = p.add_subparsers(dest='command', required=True)\ns.add_parser('train').add_argument('--rate')",
        [{"rate": 1}, {}],
    ),
}


@pytest.mark.parametrize("name", ARGPARSE_SCRIPTS)
def test_what_argparse_takes_passes_and_what_it_rejects_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments, cases = ARGPARSE_SCRIPTS[name]
    made = "" if "ArgumentParser(" in arguments else "p = argparse.ArgumentParser()\n"
    script = f"import argparse\n{made}{arguments}\np.parse_args()"
    code = code_of(tmp_path, script)
    for given in cases:
        training = LocalTraining(code=code, hyperparameters=given, folder=tmp_path)
        monkeypatch.setattr("sys.argv", ["train.py", *training.arguments()])
        try:
            exec(compile(script, "train.py", "exec"), {})
        except SystemExit as ended:
            if not ended.code:
                check_hyperparameters(code, "train.py", given, transformers=None)
                continue
            with pytest.raises(ValueError, match=r"'.+' .+:|'.+' \(.*\) must be .+"):
                check_hyperparameters(code, "train.py", given, transformers=None)
        else:
            check_hyperparameters(code, "train.py", given, transformers=None)
    capsys.readouterr()


FIELDS = """
    import sys
    from dataclasses import dataclass, field
    from typing import Literal, Optional
    from transformers import HfArgumentParser, TrainingArguments
    @dataclass
    class Model:
        model_name: str = field(metadata={"help": "required"})
        rank: int = 8
        alpha: Optional[float] = field(default=None)
        kind: Literal["lora", "full"] = "lora"
        merge: bool = False
        layers: list[int] = field(default_factory=list)
    parser = HfArgumentParser((Model, TrainingArguments))
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        model, training = parser.parse_json_file(sys.argv[1])
    else:
        model, training = parser.parse_args_into_dataclasses()
"""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, None),
        ({"rank": 4, "alpha": 0.5, "kind": "full", "merge": True, "layers": 3, "learning_rate": 1e-4}, None),
        ({"merge": "No"}, None),
        ({"rank": 4.5}, r"'rank' \(4.5\) must be a whole number"),
        ({"alpha": "big"}, r"'alpha' \(big\) must be a number"),
        ({"kind": "lorra"}, r"'kind' \(lorra\) must be lora, full; did you mean 'lora'\?"),
        ({"merge": "maybe"}, r"'merge' \(maybe\) must be true or false"),
        ({"layers": "1 2"}, r"'layers' \(1 2\) must be a whole number, .* let the script take it apart"),
        (
            {"overwrite_output_dir": True},
            r"was one of another release: see its migration guide; did you mean .output_dir.\?$",
        ),
        ({"ranks": 1}, r"'ranks' is no argument of train.py; did you mean 'rank'\?"),
    ],
)
def test_the_dataclasses_of_hugging_faces_examples_are_read(
    tmp_path: Path, given: dict[str, Any], says: str | None
) -> None:
    code = code_of(tmp_path, FIELDS)
    if says is None:
        check_hyperparameters(code, "train.py", {"model_name": "x", **given}, transformers="5.24.0")
        with pytest.raises(ValueError, match=r"'model_name' is required by train.py"):
            check_hyperparameters(code, "train.py", given, transformers="5.24.0")
        return
    with pytest.raises(ValueError, match=says):
        check_hyperparameters(code, "train.py", {"model_name": "x", **given}, transformers="5.24.0")


CANNOT_TELL = {
    "unknown ones are passed over": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\n"
    "p.parse_known_args()",
    "another package's configuration": "from trl import SFTConfig, TrlParser\np = TrlParser((SFTConfig,))",
    "a class from elsewhere": "from transformers import HfArgumentParser\nfrom trl import SFTConfig\n"
    "p = HfArgumentParser(SFTConfig)",
    "names that are computed": "import argparse\np = argparse.ArgumentParser()\n"
    "for n in 'ab':\n    p.add_argument('--' + n)",
    "a parser that is handed on": "import argparse, lib\np = argparse.ArgumentParser()\np.add_argument('--a')\n"
    "lib.add(p)\np.parse_args()",
    "another module's parser": "from lib import parser\nimport argparse\nparser.add_argument('--a')\n"
    "parser.parse_args()",
    "what another module's function made": "import argparse, lib\np = lib.parser()\np.add_argument('--a')\n"
    "q = argparse.ArgumentParser()\np.parse_args()",
    "arguments of the script's own": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\n"
    "p.parse_args(['--a', '1'])",
    "subcommands": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\np.add_subparsers()",
    "a parser that an object hands on": "import argparse, lib\nclass Job:\n    def __init__(self):\n"
    "        self.parser = argparse.ArgumentParser()\n        self.parser.add_argument('--a')\n"
    "        lib.add(parser=self.parser)\n        self.parser.parse_args()",
    "a group that is handed on": "import argparse, lib\np = argparse.ArgumentParser()\np.add_argument('--a')\n"
    "g = p.add_argument_group('b')\nlib.add(g)\np.parse_args()",
    "a function that hands its parser on": "import argparse, lib\ndef more(q):\n    lib.add(q)\n"
    "p = argparse.ArgumentParser()\np.add_argument('--a')\nmore(p)\np.parse_args()",
    "a method that is handed on": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\n"
    "add = p.add_argument\nadd('--b')\np.parse_args()",
    "a parser that a function returns": "import argparse, lib\ndef make():\n    p = argparse.ArgumentParser()\n"
    "    p.add_argument('--a')\n    return p\nlib.extend(make()).parse_args()",
    "a returned parser that is handed on": "import argparse, lib\ndef make():\n    p = argparse.ArgumentParser()\n"
    "    p.add_argument('--a')\n    return p\nq = make()\nlib.extend([q])\nq.parse_args()",
    "a walrus": "import argparse, lib\n"
    "(p := argparse.ArgumentParser()).add_argument('--a')\nlib.add(p)\np.parse_args()",
    "a copy of the command line": "import argparse, sys\nargv = list(sys.argv)\nargv.remove('--b')\n"
    "p = argparse.ArgumentParser()\np.add_argument('--a')\np.parse_args(argv[1:])",
    "a command line by another name": "import argparse, sys as system\nsystem.argv = system.argv[:1]\n"
    "p = argparse.ArgumentParser()\np.add_argument('--a')\np.parse_args()",
    "the inside of argparse": "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\n"
    "p._add_action(argparse._StoreAction(['--b'], 'b'))\np.parse_args()",
    "a command line that is changed": "import argparse, sys\np = argparse.ArgumentParser()\np.add_argument('--a')\n"
    "sys.argv = [each for each in sys.argv if 'b' not in each]\np.parse_args()",
    "a command line that grows": "import argparse, sys\np = argparse.ArgumentParser()\np.add_argument('--a')\n"
    "sys.argv.append('--a=1')\np.parse_args()",
    "simple-parsing": "from simple_parsing import ArgumentParser\np = ArgumentParser()\np.add_argument('--a')\n"
    "p.add_arguments(Options, dest='options')\np.parse_args()",
    "simple-parsing by its module": "import simple_parsing as argparse\np = argparse.ArgumentParser()\n"
    "p.add_argument('--a')\np.parse_args()",
    "jsonargparse": "import jsonargparse\np = jsonargparse.ArgumentParser()\np.add_argument('--a', type=Model)\n"
    "p.parse_args()",
    "typer beside argparse": "import argparse, typer\ndef old():\n    p = argparse.ArgumentParser()\n"
    "    p.add_argument('--a')\n    p.parse_args()\ntyper.run(lambda b: None)",
    "click": "import click\n@click.command()\n@click.option('--b')\ndef main(b): ...\nmain()",
    "a class of the same name": "from lib import TrainingArguments\nfrom transformers import HfArgumentParser\n"
    "p = HfArgumentParser(TrainingArguments)\np.parse_args_into_dataclasses()",
    "a dictionary": "from dataclasses import dataclass\nfrom transformers import HfArgumentParser\n@dataclass\n"
    "class A:\n    a: int = 1\np = HfArgumentParser(A)\np.parse_dict({'a': 2})",
    "accelerate's parser": "import sys\nfrom accelerate.commands.launch import launch_command_parser\n"
    "p = launch_command_parser()\np.add_argument('--a')\np.parse_args()",
    "no parser": "import os\nprint(os.environ['SM_HP_EPOCHS'])",
}


@pytest.mark.parametrize("name", CANNOT_TELL)
def test_what_cannot_be_told_from_the_source_is_not_refused(tmp_path: Path, name: str) -> None:
    code = code_of(tmp_path, CANNOT_TELL[name])
    assert arguments_of(code, "train.py") is None
    check_hyperparameters(code, "train.py", {"anything": 1}, transformers="5.23.0")


LAUNCHERS = {
    "a process": "import subprocess, sys\n"
    "subprocess.run(['accelerate', 'launch', 'loop.py', *sys.argv[1:]], check=True)",
    "a sum": "import subprocess, sys\ncommand = ['torchrun', '--nproc_per_node=2', 'loop.py'] + sys.argv[1:]\n"
    "subprocess.run(command, check=True)",
    "accelerate's launcher": "import sys\nfrom accelerate.commands import launch\np = launch.launch_command_parser()\n"
    "launch.launch_command(p.parse_args(['--num_processes=2', 'loop.py', *sys.argv[1:]]))",
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_script_that_launches_another_has_that_ones_arguments(tmp_path: Path, name: str) -> None:
    code = code_of(tmp_path, LAUNCHERS[name], loop=ARGPARSE)
    check_hyperparameters(code, "train.py", {"epochs": 1}, transformers=None)
    with pytest.raises(ValueError, match=r"'rate' is no argument of loop.py"):
        check_hyperparameters(code, "train.py", {"rate": 1}, transformers=None)
    code = code_of(tmp_path, LAUNCHERS[name].replace("loop.py", "elsewhere.py"), loop=ARGPARSE)
    check_hyperparameters(code, "train.py", {"rate": 1}, transformers=None)
    reads_as_well = "\nimport argparse\np = argparse.ArgumentParser()\np.parse_known_args()"
    code = code_of(tmp_path, LAUNCHERS[name] + reads_as_well, loop=ARGPARSE)
    check_hyperparameters(code, "train.py", {"rate": 1}, transformers=None)


def test_a_launcher_that_torchrun_would_start_once_for_each_gpu_is_noted(tmp_path: Path) -> None:
    code = code_of(tmp_path, LAUNCHERS["a process"], loop=ARGPARSE)
    for distribution, noted in (("torchrun", True), ("script", False), (None, False)):
        instances = TrainingInstances(instance_type="ml.g5.12xlarge", distribution=distribution)
        found = Found()
        decide_training(TrainingAsked(name="tune", code=code, instances=instances), found)
        assert ["train.py starts loop.py itself" in each.text for each in found.notes] == [True] * noted


def test_a_field_has_aliases_and_a_bool_without_a_default_is_false(tmp_path: Path) -> None:
    script = """
        from dataclasses import KW_ONLY, dataclass, field
        from transformers import HfArgumentParser
        from transformers.hf_argparser import HfArg
        @dataclass
        class Model:
            _: KW_ONLY
            merge: bool
            name: str = field(default="x", metadata={"aliases": ["--model", "-m"], "help": "which"})
            rate: float = HfArg(default=1.0, aliases="--lr")
        HfArgumentParser(description="trains", dataclass_types=[Model]).parse_args_into_dataclasses()
    """
    code = code_of(tmp_path, script)
    check_hyperparameters(code, "train.py", {"model": "y", "lr": 2}, transformers=None)
    check_hyperparameters(code, "train.py", {"m": "y"}, transformers=None)
    with pytest.raises(ValueError, match=r"'lr' \(fast\) must be a number"):
        check_hyperparameters(code, "train.py", {"lr": "fast"}, transformers=None)
    with pytest.raises(ValueError, match=r"'models' is no argument of train.py"):
        check_hyperparameters(code, "train.py", {"models": "y"}, transformers=None)


def test_a_class_is_imported_from_beside_the_script_before_the_codes_folder(tmp_path: Path) -> None:
    script = "from transformers import HfArgumentParser\nfrom options import Data\nHfArgumentParser(Data)"
    code = code_of(tmp_path, "", options=DATA)
    (tmp_path / "src" / "options").mkdir(parents=True)
    (tmp_path / "src" / "train.py").write_text(script)
    (tmp_path / "src" / "options" / "__init__.py").write_text("class Data:\n    width: int = 5\n")
    check_hyperparameters(code, "src/train.py", {"width": 1}, transformers=None)
    with pytest.raises(ValueError, match=r"'column' is no argument of src/train.py"):
        check_hyperparameters(code, "src/train.py", {"column": "x"}, transformers=None)


# -- what it runs on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"instance_type": "ml.g5.2xlarg"}, r"that SageMaker trains on; did you mean 'ml.g5.2xlarge'"),
        ({"instance_type": "ml.g4ad.xlarge"}, r"SageMaker trains on"),
        ({"instance_type": ["ml.g5.xlarge", "ml.m5.large"]}, "must all compute with the same"),
        ({"instance_type": ["ml.g5.xlarge"] * 2}, "names a type twice"),
        ({"count": 2}, r"'count' \(2\) would each train the whole model .* say distribution='torchrun'"),
        ({"spot": True}, r"'spot' \(True\) can be stopped at any time, .* say checkpoints=True"),
        ({"max_wait_seconds": 5}, "is for spot=True alone"),
        ({"spot": True, "checkpoints": True, "max_wait_seconds": 5}, "'max_wait_seconds' .* must be 86400 or more"),
        ({"max_runtime_seconds": 3_000_000}, r"'max_runtime_seconds' .* must be from 1 to 2419200: 28 days"),
        ({"volume_gb": 20_000}, r"'volume_gb' \(20000\) must be from 1 to 16384"),
    ],
)
def test_instances_that_cannot_be_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TrainingInstances(**options)


def test_types_that_only_train_are_known_and_types_that_only_host_are_not_taken() -> None:
    assert find_training_instance("ml.p3dn.24xlarge").gpus == 8
    with pytest.raises(ValueError, match="trains on"):
        find_training_instance("ml.inf2.xlarge")
    assert len(all_training_instances()) > 200


def test_a_model_too_large_to_train_is_told_with_the_sum() -> None:
    whole = fit_training(SEVEN_BILLION, find_training_instance("ml.g5.xlarge"), adapter=False, arguments={})
    assert whole.verdict == "too small"
    assert "7,000,000,000 weights of 2 bytes, all of them trained, take 13.0 GiB, their gradients 13.0 GiB" in whole.why
    assert "adamw_torch 26.1 GiB, 52.2 GiB without the batches; ml.g5.xlarge has one GPU of 22.4 GiB" in whole.why


def test_lora_counts_as_lora_and_a_quantised_base_as_that() -> None:
    instance = find_training_instance("ml.g5.xlarge")
    lora = fit_training(SEVEN_BILLION, instance, adapter=True, arguments={})
    assert lora.verdict == "fits"
    assert "LoRA on 7,000,000,000 weights of 2 bytes, with 1% of them trained, take 13.2 GiB" in lora.why
    thirteen = ModelFacts(model_id="me/13", parameters=13_000_000_000)
    assert fit_training(thirteen, instance, adapter=True, arguments={}).verdict == "too small"
    assert fit_training(thirteen, instance, adapter=True, arguments={"load_in_4bit": "true"}).verdict == "fits"


def test_the_optimizer_and_the_way_of_sharing_count() -> None:
    two = ModelFacts(parameters=2_000_000_000)
    small, large = find_training_instance("ml.g5.xlarge"), find_training_instance("ml.g5.12xlarge")
    assert fit_training(two, small, adapter=False, arguments={}).verdict == "tight"
    assert fit_training(two, small, adapter=False, arguments={"optim": "adafactor"}).verdict == "fits"
    alone = fit_training(SEVEN_BILLION, large, adapter=False, arguments={}, torchrun=True)
    assert alone.verdict == "too small"
    assert "torchrun without fsdp keeps all of it on each" in alone.why
    shared = fit_training(SEVEN_BILLION, large, adapter=False, arguments={"fsdp": "full_shard"}, torchrun=True)
    assert shared.verdict == "tight"
    many = {"fsdp": "full_shard"}
    assert (
        fit_training(SEVEN_BILLION, large, adapter=False, arguments=many, instances=4, torchrun=True).verdict == "fits"
    )


def test_ways_to_train_with_less_memory_are_not_refused() -> None:
    small = find_training_instance("ml.g5.xlarge")
    three, thirteen = ModelFacts(parameters=3_000_000_000), ModelFacts(parameters=13_000_000_000)
    assert fit_training(three, small, adapter=False, arguments={}).verdict == "too small"
    # each gradient is used at once, or the states are in the CPU's memory
    for less in ({"optim": "lomo"}, {"optim": "galore_adamw_layerwise"}):
        assert fit_training(three, small, adapter=False, arguments=less).verdict == "fits"
    assert fit_training(three, small, adapter=False, arguments={"deepspeed": "zero3.json"}).verdict == "tight"
    offloads = {"fsdp": "full_shard offload"}
    assert fit_training(three, small, adapter=False, arguments=offloads, torchrun=True).verdict == "tight"
    # the files of a base that is quantised already are as small as its weights
    quantised = ModelFacts(parameters=13_000_000_000, weight_bytes=8_000_000_000)
    assert fit_training(quantised, small, adapter=True, arguments={}).verdict == "fits"
    assert fit_training(quantised, small, adapter=False, arguments={}).verdict == "too small"
    assert fit_training(thirteen, small, adapter=True, arguments={"load_in_8bit": "true"}).verdict == "fits"
    four_bits = fit_training(three, small, adapter=False, arguments={"optim": "adamw_torch_4bit"})
    eight_bits = fit_training(three, small, adapter=False, arguments={"optim": "adamw_bnb_8bit"})
    assert ("4bit 2.8 GiB, 25.1 GiB" in four_bits.why, "8bit 5.6 GiB, 27.9 GiB" in eight_bits.why) == (True, True)


def test_a_script_that_quantises_or_offloads_without_an_argument_is_read(tmp_path: Path) -> None:
    model = ModelAsked(facts=ModelFacts(model_id="me/thirteen", parameters=13_000_000_000), source="hub", revision="x")
    (tmp_path / "plain").mkdir()
    (refusal,) = refusals_of(asked(tmp_path / "plain", model=model, adapter="merged"))
    assert "LoRA on 13,000,000,000 weights of 2 bytes" in refusal.rule
    quantises = "from transformers import BitsAndBytesConfig\nconfig = BitsAndBytesConfig(load_in_4bit=True)"
    assert refusals_of(asked(tmp_path, code=code_of(tmp_path, quantises), model=model, adapter="merged")) == []
    by_argument = f"{textwrap.dedent(ARGPARSE)}\nparser.add_argument('--load_in_4bit', type=bool)\n"
    code = code_of(tmp_path, by_argument)
    (refusal,) = refusals_of(asked(tmp_path, code=code, model=model, adapter="merged"))
    assert "weights of 2 bytes" in refusal.rule
    given = {"load_in_4bit": True}
    assert refusals_of(asked(tmp_path, code=code, model=model, adapter="merged", hyperparameters=given)) == []
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}')
    assert refusals_of(asked(tmp_path, code=code, model=model)) == []


@pytest.mark.parametrize(
    ("name", "pattern", "says"),
    [
        ("loss", r"'loss': '?([0-9.]+)", None),
        ("loss", r"loss: ([0-9]+(?:\.[0-9]+)?)", None),
        ("loss", r"loss: ([-+]?\d+(?:\.\d+)*)\(+\)+", None),
        ("loss", r"loss: [0-9.]+", "has an expression with 0 groups: put the number"),
        ("loss", r"(loss): ([0-9.]+)", "has an expression with 2 groups"),
        ("loss", r"loss: ([0-9.", "has no regular expression"),
        ("loss", r"loss: ([0-9.]+)+$", r"repeats a repetition (([0-9.]+)+)"),
        ("loss", r"(?:\s+)*loss: ([0-9.]+)", "repeats a repetition"),
        ("loss", r"(?:a*)*loss: ([0-9.]+)", "repeats a repetition"),
        ("loss", "", "has an expression with 0 groups"),
        ("loss", f"({'x' * 500})", "more than SageMaker's 500 characters"),
        ("", "loss: (.*)", "must be a name of 1 to 255 characters"),
    ],
)
def test_expressions_of_metrics_have_one_group_and_end(
    tmp_path: Path, name: str, pattern: str, says: str | None
) -> None:
    refusals = refusals_of(asked(tmp_path, metrics={name: pattern}))
    assert [says in each.rule for each in refusals] == ([] if says is None else [True])


def test_of_instances_whose_processes_the_script_starts_all_gpus_count() -> None:
    large = find_training_instance("ml.g5.12xlarge")
    thirty = ModelFacts(parameters=30_000_000_000)
    assert TrainingInstances(count=4, distribution="script").count == 4
    assert fit_training(thirty, large, adapter=False, arguments={}).verdict == "too small"
    assert fit_training(thirty, large, adapter=False, arguments={}, instances=4).verdict == "tight"


def test_what_nobody_knows_is_not_refused_and_noted(tmp_path: Path) -> None:
    instance = find_training_instance("ml.m5.large")
    assert fit_training(ModelFacts(), instance, adapter=False, arguments={}).verdict == "unknown"
    for facts, noted in ((ModelFacts(model_id="me/new"), True), (SEVEN_BILLION, False)):
        found, model = Found(), ModelAsked(facts=facts, source="hub", revision="x")
        decide_training(asked(tmp_path, model=model, adapter="merged"), found)
        said = [each.text for each in found.notes if each.kind == "training-size"]
        assert ["how many weights 'me/new' has" in each and "parameters=" in each for each in said] == [True] * noted


@pytest.mark.parametrize(
    ("hyperparameters", "distribution"),
    [({}, None), ({}, "torchrun"), ({"fsdp": "full_shard"}, "torchrun"), ({"optim": "adafactor"}, None)],
)
@pytest.mark.parametrize("adapter", [None, "merged"])
def test_each_type_that_is_proposed_is_taken(
    tmp_path: Path, hyperparameters: dict[str, Any], distribution: Any, adapter: Any
) -> None:
    code = code_of(tmp_path, "print('arguments of any name')")
    thirty = ModelFacts(model_id="me/thirty", parameters=30_000_000_000)

    def refused(instance_type: str) -> list[Refusal]:
        instances = TrainingInstances(instance_type=instance_type, distribution=distribution)
        model = ModelAsked(facts=thirty, source="hub", revision="x")
        training = TrainingAsked(
            name="tune", code=code, instances=instances, model=model, adapter=adapter, hyperparameters=hyperparameters
        )
        return refusals_of(training)

    (refusal,) = refused("ml.g5.xlarge")
    proposed = re.findall(r"\bml\.[a-z0-9-]+\.\w+", refusal.rule.partition(": take ")[2])
    assert [refused(each) for each in proposed] == [[]] * len(proposed)
    assert bool(proposed) == (adapter is not None or distribution is None or bool(hyperparameters))
    assert ("shard it" in refusal.rule) == ("fsdp" not in hyperparameters)


def refusals_of(training: TrainingAsked) -> list[Refusal]:
    found = Found()
    decide_training(training, found)
    return found.refusals


def asked(tmp_path: Path, **options: Any) -> TrainingAsked:
    code = options.pop("code", None) or code_of(tmp_path, ARGPARSE)
    return TrainingAsked(name="tune", code=code, instances=TrainingInstances(), **options)


def test_the_refusal_of_a_large_model_names_what_would_do(tmp_path: Path) -> None:
    model = ModelAsked(facts=SEVEN_BILLION, source="hub", revision="main")
    refusals = refusals_of(asked(tmp_path, model=model))
    (refusal,) = refusals
    assert refusal.sentence.startswith("'instance_type' (ml.g5.xlarge) cannot train me/seven: 7,000,000,000 weights")
    assert "take ml." in refusal.rule
    assert "train a LoRA adapter (adapter='merged')" in refusal.rule
    refusals = refusals_of(asked(tmp_path, model=model, adapter="merged"))
    assert refusals == []


def test_a_gated_model_without_a_token_and_one_in_an_archive_are_refused(tmp_path: Path) -> None:
    gated = ModelFacts(model_id="me/gated", gated=True)
    (refusal,) = refusals_of(asked(tmp_path, model=ModelAsked(facts=gated, source="hub", revision="x")))
    assert "is gated: agree to its terms on its page and pass the secret" in refusal.rule
    none = refusals_of(asked(tmp_path, model=ModelAsked(facts=gated, source="hub", revision="x", token=True)))
    assert none == []
    (refusal,) = refusals_of(asked(tmp_path, model=ModelAsked(source="archive")))
    assert "unpack it in S3 and name the prefix" in refusal.rule


def test_a_model_type_that_the_trainers_release_has_not_is_refused(tmp_path: Path) -> None:
    model = ModelAsked(facts=know_model("x/y", model_type="qwen3"), source="mirrored")
    refusals = refusals_of(asked(tmp_path, model=model, transformers="4.46.3"))
    assert ["qwen3" in each.rule for each in refusals] == [True]
    refusals = refusals_of(asked(tmp_path, model=model, transformers="5.23.0"))
    assert refusals == []


# -- when, and what decides --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    ["rate(1 day)", "rate(7 days)", "cron(0 3 ? * SUN *)", "cron(0/15 8-18 ? * MON-FRI *)", "cron(0 0 L * ? 2027-2030)",
     "cron(5 4 1,15 JAN,JUL ? *)", "cron(0 9 ? * 2#1 *)"],
)  # fmt: skip
def test_schedules_that_eventbridge_takes_pass(good: str) -> None:
    check_schedule(good)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("0 3 * * 0", "is not a schedule: write it as 'cron"),
        ("cron(0 3 * * 0)", "has 5 fields, and a schedule has 6"),
        ("cron(0 3 * * SUN *)", r"must have '\?' for either"),
        ("cron(0 3 ? * ? *)", r"must have '\?' for either"),
        ("cron(0 24 ? * SUN *)", "has '24' for hours, which takes 0 to 23"),
        ("cron(0 3 ? * 0 *)", "has '0' for day of the week, which takes 1 to 7"),
        ("rate(1 days)", r"is no rate: write 'rate\(1 day\)'"),
        ("rate(7 day)", r"is no rate: write 'rate\(7 days\)'"),
        ("rate(0 days)", r"is no rate: write 'rate\(1 day\)'"),
        ("every sunday", "is not a schedule"),
    ],
)
def test_schedules_that_it_refuses_are_refused_at_synth(wrong: str, says: str) -> None:
    with pytest.raises(ValueError, match=rf"'expression' \(.*\) {says}"):
        TrainingSchedule(expression=wrong)


def test_a_gate_has_one_bound_and_a_channel_a_folder(stack: Stack) -> None:
    for bounds in ({}, {"at_most": 1.0, "at_least": 0.0}):
        with pytest.raises(ValueError, match=r"'metric' \(loss\) needs one bound: at_most= where smaller is better"):
            EvaluationGate(metric="loss", **bounds)
    with pytest.raises(ValueError, match=r"'metric' \(' '\) must be a name in metrics\.json"):
        EvaluationGate(metric=" ", at_most=1)
    with pytest.raises(ValueError, match=r"'at_least' \(-inf\) is no finite number and must be a number"):
        EvaluationGate(metric="accuracy", at_least=float("-inf"))
    with pytest.raises(ValueError, match=r"'margin' \(-1\) must be 0 or more"):
        EvaluationGate(metric="loss", at_most=1, margin=-1)
    for prefix in ("", "train", "/train/", "s3://bucket/train/"):
        with pytest.raises(ValueError, match=r"'prefix' \(.*\) is not a prefix: give .* as 'data/train/'"):
            S3Data(s3.Bucket.from_bucket_name(stack, prefix or "Empty", "data"), prefix)
    for prefix, wildcard in (("*/", r"\*"), ("data/v?/", r"\?")):
        with pytest.raises(ValueError, match=rf"'prefix' \(.*\) has a '{wildcard}', for which a role's policy would"):
            S3Data(s3.Bucket.from_bucket_name(stack, prefix, "data"), prefix)


# -- the settings ------------------------------------------------------------------------------------------------------


def settings(tmp_path: Path, **training: Any) -> dict[str, Any]:
    code_of(tmp_path, ARGPARSE)
    return {
        "region": "us-east-1",
        "image": {"transformers": "5.23.0"},
        "endpoints": {
            "bloom": {"model": "bloom"},
            "packed": {"model": "x/y", "weights": {"kind": "s3", "bucket": "abc", "key": "m.tar.gz"}},
            "small": {"model": "bloom", "hosting": {"kind": "serverless", "memory_mb": 6144}},
            "shared": {
                "model": "bloom",
                "hosting": {
                    "kind": "components",
                    "instance_type": "ml.m5.4xlarge",
                    "maximum": 1,
                    "components": {"one": {"memory_mb": 4096}},
                },
            },
        },
        "training": {"tune": {"code": {"folder": str(tmp_path)}, **training}},
    }


def test_right_settings_have_no_problem(tmp_path: Path) -> None:
    for endpoint in ("bloom", "shared"):
        found = decided(settings(tmp_path, endpoint=endpoint, hyperparameters={"epochs": 3}))
        assert found.problems == ()


@pytest.mark.parametrize(
    ("training", "line"),
    [
        ({"endpoint": "blom"}, "training.tune.endpoint (blom): is not the id of an endpoint; did you mean 'bloom'?"),
        ({"endpoint": "packed"}, "training.tune.endpoint (packed): has its model in an archive"),
        ({"endpoint": "small"}, "training.tune.endpoint (small): is hosted as 'serverless'"),
        ({"gate": {"metric": "loss", "at_most": 1}}, "training.tune.gate: is for models that go on to an endpoint"),
        ({"endpoint": "bloom", "hyperparameters": {"epoch_": 3}}, "training.tune.hyperparameters: 'epoch_' is no"),
        ({"code": {"folder": "/nowhere"}}, "training.tune.code.folder (/nowhere): is not a folder"),
        ({"instances": {"count": 2}}, "training.tune.instances.count (2): would each train"),
        ({"instances": {"instance_typ": "x"}}, "training.tune.instances.instance_typ: is not a setting; did you mean"),
        ({"schedule": {"expression": "daily"}}, "training.tune.schedule.expression (daily): is not a schedule"),
        ({"schedule": {"expresion": "daily"}}, "training.tune.schedule.expresion: is not a setting; did you mean 'exp"),
        ({"channels": {"train": {"bucket": "b", "prefix": "x"}}}, "training.tune.channels.train.prefix (x): is not a"),
        ({"channels": {"train": {"kind": "hub", "dataset": "a/b"}}}, "training.tune.channels.train.revision: field"),
        (
            {"channels": {"train": {"bucket": "s3://data", "prefix": "x/"}}},
            "training.tune.channels.train.bucket (s3://data): is not the name of a bucket: write the name alone",
        ),
        ({"endpoint": "bloom", "registry": "my models"}, "training.tune.registry (my models): cannot be the name of a"),
        ({"role": "arn:aws:s3:::x"}, "training.tune.role (arn:aws:s3:::x): is an ARN of s3"),
        ({"image": {"transformers": "5.23"}}, "training.tune.image.transformers (5.23): is not an exact transformers"),
        (
            {"endpoint": "bloom", "image": {"transformers": "4.46.3"}, "gate": {"metric": "l", "at_most": 1}},
            "training.tune.gate.entry_point (evaluate.py): is not in",
        ),
    ],
)
def test_wrong_settings_are_a_line_with_their_place(tmp_path: Path, training: dict[str, Any], line: str) -> None:
    found = decided(settings(tmp_path, **training))
    assert [each for each in found.problems if each.startswith(line)], found.problems


@pytest.mark.parametrize("value", [[1, 2], None, {"a": 1}])
def test_a_hyperparameter_that_is_no_plain_value_is_one_line(tmp_path: Path, value: Any) -> None:
    (line,) = decided(settings(tmp_path, hyperparameters={"epochs": value})).problems
    assert line.startswith("training.tune.hyperparameters.epochs: must be a text, a number, true or false, got ")


def test_the_engine_logs_in_for_the_base_of_the_training_too(tmp_path: Path) -> None:
    bases = decided(settings(tmp_path, endpoint="bloom")).bases
    assert ["-inference:" in base for base in bases] == [True, False]
    assert "training" in bases[1] or "/pytorch:" in bases[1]


def test_a_trainer_newer_by_a_major_is_refused_in_the_settings(tmp_path: Path) -> None:
    content = settings(tmp_path, endpoint="bloom", image={"transformers": "5.23.0"})
    content["image"]["transformers"] = "4.51.3"
    (line,) = [each for each in decided(content).problems if each.startswith("training")]
    assert line.startswith("training.tune.image.transformers (5.23.0): trains with a newer major release")
