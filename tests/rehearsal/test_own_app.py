"""A user's own app: findings in its templates, stand-ins for its needs, and refusals."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from werkzeug.serving import make_server

from extended_dlc.cli import main
from extended_dlc.rehearsal import project, scenario_own
from extended_dlc.rehearsal.assembly import Assembly, HubModelAsked
from extended_dlc.rehearsal.base_image.stand_in import DLC_4_51_3, TRAINING_5_3_0
from extended_dlc.rehearsal.engine_front import TAKES_BOTH, Front, rewrite
from extended_dlc.rehearsal.hub import Hub
from extended_dlc.rehearsal.own_models import ask_about, of_type, out_of_reach
from extended_dlc.rehearsal.project import Project
from extended_dlc.rehearsal.samples import sample_for, square_png
from extended_dlc.rehearsal.scenario_own import Wishes, look_through

BASE = "763104351884.dkr.ecr.eu-west-1.amazonaws.com/huggingface-pytorch-inference:2.6.0-transformers4.51.3-cpu"
TRAINS = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-training:2.9.0-transformers5.3.0-gpu"
VLLM = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-vllm:0.29.0-gpu"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def known() -> list[str]:
    return scenario_own.known_types()


@pytest.fixture(autouse=True)
def _asked_once(known: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario_own, "known_types", lambda: known)


def model(image: Any, **environment: str) -> dict[str, Any]:
    container = {"Image": image, "Environment": environment}
    return {"Type": "AWS::SageMaker::Model", "Properties": {"PrimaryContainer": container}}


def assembly(
    folder: Path, *resources: dict[str, Any], account: str = "unknown-account", build: str = BASE, dockerfile: str = ""
) -> Assembly:
    """Write a synth's output with a nested assembly, as of a stage."""
    inside = folder / "assembly-Prod"
    inside.mkdir(parents=True)
    stage = {"type": "cdk:cloud-assembly", "properties": {"directoryName": inside.name}}
    (folder / "manifest.json").write_text(json.dumps({"artifacts": {"Prod": stage}}))
    stack = {"type": "aws:cloudformation:stack", "environment": f"aws://{account}/eu-west-1"}
    (inside / "manifest.json").write_text(json.dumps({"artifacts": {"Stack": stack}}))
    template = {"Resources": {f"R{number}": each for number, each in enumerate(resources)}}
    (inside / "Stack.template.json").write_text(json.dumps(template))
    source = {"directory": "asset", "dockerBuildArgs": {"BASE_IMAGE": build, "TRANSFORMERS_VERSION": "5.23.0"}}
    (inside / "Stack.assets.json").write_text(json.dumps({"dockerImages": {"x": {"source": source}}}))
    (inside / "asset").mkdir()
    (inside / "asset" / "Dockerfile").write_text(dockerfile)
    return Assembly.read(folder)


def test_models_images_and_regions_are_read_from_the_templates(tmp_path: Path) -> None:
    mirror = {"Type": "Custom::ExtendedDlcMirror", "Properties": {"Create": f"--model=a/b --revision={COMMIT} --x=y"}}
    looked = look_through(
        assembly(
            tmp_path,
            model({"Fn::Sub": "own"}, HF_MODEL_ID="gpt2", HF_MODEL_REVISION="v2", HF_TASK="text-generation"),
            model(TRAINS, HF_MODEL_ID="/opt/ml/model"),
            model(TRAINS, HF_MODEL_ID="a/b", EXTENDED_DLC_ADAPTERS=f"mine=c/d@{COMMIT}"),
            mirror,
            dockerfile=f"# FROM nothing\nFROM --platform=linux/amd64 {BASE} AS base\n",
        ),
        Wishes(models={"gpt2": "gpt2", "a/b": "bert:fill-mask"}),
        {},
    )
    asked = {each.asked: (each.model_type, each.task) for each in looked.models}
    assert asked == {
        HubModelAsked(id="gpt2", revision="v2", task="text-generation"): ("gpt2", "text-generation"),
        HubModelAsked(id="a/b"): ("bert", "fill-mask"),
        HubModelAsked(id="a/b", revision=COMMIT): ("bert", "fill-mask"),
        HubModelAsked(id="c/d", revision=COMMIT, base="a/b"): ("bert", "fill-mask"),
    }
    assert {each.order.partition(":")[0] for each in looked.models if each.asked.base} == {"adapter"}
    assert looked.images == {BASE: DLC_4_51_3, TRAINS: TRAINING_5_3_0}
    assert looked.by_name == (BASE,)
    assert looked.regions == ("eu-west-1",)


def test_all_that_a_rehearsal_cannot_give_is_said_at_once_with_the_ways_out(tmp_path: Path) -> None:
    pool = {"Type": "AWS::Cognito::UserPool"}
    custom = {"Type": "Custom::Mine"}
    found = assembly(tmp_path, pool, custom, model(VLLM, HF_MODEL_ID="some/model"), account="111111111111")
    with pytest.raises(ValueError, match="neither the embedded AWS") as refused:
        look_through(found, Wishes(), {})
    said = str(refused.value)
    assert "AWS::Cognito::UserPool: R0" in said
    assert "--ignore AWS::Cognito::UserPool --ignore Custom::Mine" in said
    assert "name the account 111111111111" in said
    assert "no stand-in for huggingface-vllm" in said
    assert "some/model" in said
    assert "--model ID=TYPE" in said
    with pytest.raises(ValueError, match="name the account") as refused:
        look_through(found, Wishes(ignore=("AWS::Cognito::UserPool", "Custom::Mine"), fetch=True), {})
    assert "Cognito" not in str(refused.value)
    assert "some/model" not in str(refused.value)


def test_a_type_to_ignore_that_the_app_has_not_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'--ignore' \(AWS::SNS::Topik\) is not a type of the app's resources"):
        look_through(assembly(tmp_path, {"Type": "AWS::SNS::Topic"}), Wishes(ignore=("AWS::SNS::Topik",)), {})


def test_a_type_that_cloudformation_has_nowhere_is_named_without_a_way_to_ignore_it(tmp_path: Path) -> None:
    found = assembly(tmp_path, {"Type": "AWS::SNS::Topik"}, {"Type": "AWS::Cognito::UserPool"})
    with pytest.raises(
        ValueError, match="has these resource types in no region:\n  AWS::SNS::Topik: R0\ncorrect"
    ) as it:
        look_through(found, Wishes(ignore=("AWS::SNS::Topik",), fetch=True), {})
    assert str(it.value).endswith("let them be remembered only: --ignore AWS::Cognito::UserPool")


def test_every_type_that_our_own_constructs_make_is_known(known: list[str]) -> None:
    of_library = ("AWS::SageMaker::Endpoint", "AWS::ECR::Repository", "AWS::CDK::Metadata", "Custom::ExtendedDlcProof")
    others = ("Custom::CDKECRDeployment", "AWS::S3::BucketPolicy", "AWS::DynamoDB::Table", "AWS::Lambda::Function")
    assert {*of_library, *others} <= set(known)
    assert not {"AWS::Cognito::UserPool", "Custom::Mine", "?"} & set(known)


def test_a_models_type_is_said_looked_up_or_known_by_its_name() -> None:
    asked = [HubModelAsked(id="bigscience/bloom-3b"), HubModelAsked(id="x/looked"), HubModelAsked(id="x/said")]
    noted = {"extended-dlc:model:x/looked": {"model_type": "qwen3", "task": "text-generation"}}
    found = of_type(asked, given={"x/said": "roberta"}, looked_up=noted)
    assert [(each.model_type, each.task) for each in found] == [
        ("bloom", "text-generation"),
        ("qwen3", "text-generation"),
        ("roberta", ""),
    ]
    with pytest.raises(ValueError, match="did you mean 'roberta'"):
        of_type(asked[2:], given={"x/said": "robreta"}, looked_up={})
    with pytest.raises(ValueError, match=r"'--model' \(x/none\) is not a model of the app"):
        of_type(asked[:1], given={"x/none": "bert"}, looked_up={})


def test_the_hub_is_asked_about_a_type_that_nobody_knows_where_it_is_in_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "x" / "new"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    server = make_server("127.0.0.1", 0, Hub(tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked = [HubModelAsked(id="x/none"), HubModelAsked(id="x/new"), HubModelAsked(id="x/said")]
    given = {"x/none": "bert", "x/said": "bert"}
    try:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.port}")
        found = ask_about(asked, given=given, looked_up={})
        assert list(found) == ["extended-dlc:model:x/new"]
        assert out_of_reach(asked[1:2]) == []
        (reason,) = out_of_reach(asked[:2])
        assert "the Hub shows no model 'x/none'" in reason
        assert [each.model_type for each in of_type(asked, given=given, looked_up=found)] == ["bert", "qwen3", "bert"]
        assert ask_about([HubModelAsked(id="x/none"), asked[1]], given={}, looked_up={}) == found
    finally:
        server.shutdown()
        server.server_close()
    assert ask_about(asked, given={}, looked_up={}) == {}
    (reason,) = out_of_reach(asked)
    assert "'--fetch' gets the models from the Hub" in reason
    assert "leave it out for tiny stand-ins" in reason


FRONT = Front(
    program="/usr/bin/podman",
    environment={},
    is_podman=True,
    standins={"huggingface-pytorch-inference": "localhost/standin:1"},
    by_name=(BASE,),
    secrets={"pip-config": "/pip.conf"},
)


@pytest.mark.parametrize(
    ("given", "gets"),
    [
        (["push", "build"], ["push", "build"]),
        (["ps", "--filter", f"ancestor={BASE}"], ["ps", "--filter", f"ancestor={BASE}"]),
        (
            ["build", "--build-arg", f"BASE_IMAGE={BASE}", "--output", "type=docker,oci-mediatypes=false", "."],
            [
                "build",
                "--secret=id=pip-config,src=/pip.conf",
                f"--build-context={BASE}=docker-image://localhost/standin:1",
                *("--build-arg", "BASE_IMAGE=localhost/standin:1", "."),
            ],
        ),
        (
            ["buildx", "build", "--secret", "id=pip-config,src=/mine", f"--build-arg=B={VLLM}", "--load", "."],
            [
                *("buildx", "build", f"--build-context={BASE}=docker-image://localhost/standin:1"),
                *("--secret", "id=pip-config,src=/mine", f"--build-arg=B={VLLM}", "."),
            ],
        ),
    ],
)
def test_a_build_gets_the_stand_in_and_this_machines_pip(given: list[str], gets: list[str]) -> None:
    assert rewrite(FRONT, given) == gets


def test_the_options_of_buildx_are_left_out_for_an_engine_without_it() -> None:
    given = ["build", "--output=type=docker,oci-mediatypes=false", "--tag=a:b", "--cache-to", "type=inline", "."]
    for is_podman, has_one_exporter, gets in (
        (True, False, ["build", "--tag=a:b", "."]),
        (False, True, ["build", "--tag=a:b", "."]),
        (False, False, given),
    ):
        front = Front(program="docker", environment={}, is_podman=is_podman, has_one_exporter=has_one_exporter)
        assert rewrite(front, given) == gets


def test_the_program_in_front_of_the_engine_runs_from_any_folder(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\necho "$FORMAT $@"\n')
    engine.chmod(0o755)
    program = Front(program=str(engine), environment={"FORMAT": "docker"}, is_podman=False).install(tmp_path / "front")

    def run(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], cwd="/", capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert run("images", "a b") == "docker images a b"
    assert TAKES_BOTH in run("--version")
    assert run("login", "--username", "AWS", "https://763104351884.dkr.ecr.eu-west-1.amazonaws.com").startswith(
        "Login S"
    )


def test_an_app_is_found_run_and_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"has no app: .*--app.*extended-dlc init"):
        Project.find(tmp_path)
    with pytest.raises(ValueError, match=r"'--context' \(model\) must be KEY=VALUE"):
        Project.find(tmp_path, "true", ("model",))
    (tmp_path / "cdk.json").write_text(json.dumps({"app": "python3 of_file.py", "context": {"a": 1}}))
    (tmp_path / "cdk.context.json").write_text(json.dumps({"b": 2}))
    found = Project.find(tmp_path, context=("a=3",))
    assert found.command == "python3 of_file.py"
    assert found.known_context == {"a": "3", "b": 2}
    log = tmp_path / "log"
    writes = 'mkdir -p "$CDK_OUTDIR" && echo "$CDK_CONTEXT_JSON" > "$CDK_OUTDIR/manifest.json"'
    Project.find(tmp_path, writes).synthesize(tmp_path / "out", log)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == {"a": 1, "b": 2}
    with pytest.raises(RuntimeError, match="wrote no cloud assembly"):
        Project.find(tmp_path, "true").synthesize(tmp_path / "out", log)
    with pytest.raises(RuntimeError, match=r"exit status 3:\nwhat is wrong"):
        Project.find(tmp_path, "echo what is wrong; exit 3").synthesize(tmp_path / "out", log)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=f"npm install aws-cdk@{project.CLI}"):
        project.find_cli(tmp_path)
    program = tmp_path / "node_modules" / ".bin" / "cdk"
    program.parent.mkdir(parents=True)
    program.touch()
    (tmp_path / "packages").mkdir()
    assert project.find_cli(tmp_path / "packages") == [str(program)]  # the CLI of the workspace's root


TYPES = Path(scenario_own.__file__).parent / "base_image" / "context" / "tiny_types.py"
SERVER = Path(__file__).parents[2] / "docker" / "inference"


def test_tiny_models_of_types_by_name_are_read_by_transformers(tmp_path: Path) -> None:
    orders = (
        *("qwen2::1=a/writes", "distilbert:text-classification:2=a/judges", "nonsense::4=a/none"),
        *("llava:image-text-to-text:5=a/reads", "detr::6=a/finds", "qwen2_vl:image-text-to-text:7=a/neither"),
    )
    done = subprocess.run(
        [sys.executable, str(TYPES), str(tmp_path), *orders],
        env={"PYTHONPATH": str(SERVER), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "a/none: CannotMake: transformers" in done.stderr
    assert "a/neither: CannotMake: type 'qwen2_vl' reads pictures with text" in done.stderr
    assert sorted(each.name for each in (tmp_path / "a").iterdir()) == ["finds", "judges", "reads", "writes"]
    from PIL import Image
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a" / "writes")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "writes")
    written = tokenizer.decode(model.generate(**tokenizer("Hello", return_tensors="pt"), max_new_tokens=4)[0])
    assert written.startswith("Hello ")
    assert tokenizer.chat_template
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "a" / "judges").config.num_labels == 2
    picture = Image.open(io.BytesIO(square_png(32)))
    boxes = pipeline("object-detection", str(tmp_path / "a" / "finds"))(picture, threshold=0.0)
    assert set(boxes[0]["box"]) == {"xmin", "ymin", "xmax", "ymax"}
    chat = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Hello"}]}]
    (read,) = pipeline("image-text-to-text", str(tmp_path / "a" / "reads"))(
        text=chat, max_new_tokens=4, return_full_text=False
    )
    assert len(read["generated_text"].split()) == 4


def test_a_sample_is_what_the_task_or_the_type_takes() -> None:
    kinds = {("vit", ""): "image/png", ("whisper", ""): "audio/wav", ("bert", "question-answering"): "application/json"}
    assert {each: sample_for(*each).content_type for each in kinds} == kinds
    assert sample_for("vit", "").data.startswith(b"\x89PNG")
    assert sample_for("llama", "").text
    chat = json.loads(sample_for("llava", "image-text-to-text").data)
    assert [each["type"] for each in chat["messages"][0]["content"]] == ["image_url", "text"]


def test_options_that_do_not_go_together_are_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, said in (
        (["--scenario", "main", "--ignore", "AWS::SNS::Topic"], "--ignore is of an app of your own"),
        (["--scenario", "main", "--app", "python my_app.py"], "--app is of an app of your own"),
        (["--app", "true", "--model", "my/model"], "'--model' (my/model) must be ID=TYPE"),
        ([], "has no app: name the command that synthesizes it"),
    ):
        done = CliRunner().invoke(main, ["rehearse", *arguments], env={"COLUMNS": "400"})
        assert done.exit_code in (1, 2)
        assert said in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []
