"""The app's settings: what is read, and how everything that is wrong is reported at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.app.read import check_context, keys_of_context_files
from extended_dlc.cli._settings import decided, raw_settings
from tests.support.settings import SettingsError, plan_of, read_settings
from tests.support.settings import read as read_all


def read(settings: Any, **overrides: str) -> Any:
    return read_settings({"extended-dlc": settings, **overrides})


def problems(settings: Any, **overrides: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        read(settings, **overrides)
    return [line.strip() for line in str(error.value).splitlines()[1:]]


def test_the_shipped_settings_are_valid_and_mean_bloom_on_one_cpu_instance(shipped_settings: Any) -> None:
    settings = read(shipped_settings)
    bloom = settings.endpoints["model"]
    assert (bloom.model, bloom.hosting.instance_type, bloom.hosting.instances) == (
        "bigscience/bloom-560m",
        "ml.m5.xlarge",
        1,
    )


def test_bloom_and_whisper_stand_for_the_tutorials_models(shipped_settings: Any) -> None:
    shipped_settings["endpoints"] = {"a": {"model": "bloom"}, "b": {"model": "whisper"}}
    settings = read(shipped_settings)
    assert [endpoint.model for endpoint in settings.endpoints.values()] == [
        "bigscience/bloom-560m",
        "openai/whisper-base",
    ]


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_settings_file_is_read_instead_of_cdk_json(shipped_settings: Any, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"settings{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps({**shipped_settings, "region": "eu-west-1"}))
    else:
        file.write_text("region: eu-west-1\nimage: {transformers: 5.23.0}\nendpoints:\n  w:\n    model: whisper\n")
    assert read_settings({"extended-dlc": "ignored", "settings": str(file)}).region == "eu-west-1"


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings file .*none\.yaml cannot be read: "):
        read_settings({"settings": str(tmp_path / "none.yaml")})


def test_an_app_that_is_run_without_the_cdk_cli_says_how_it_is_run() -> None:
    with pytest.raises(SettingsError, match=r"^the app.s context has no settings: run it by the CDK CLI"):
        read_settings({})
    with pytest.raises(SettingsError, match=r"^context\.extended-dlc of cdk\.json holds no settings"):
        read_settings({"extended-dlc": ["a list"]})


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_file_as_editors_of_windows_write_it_is_read(shipped_settings: Any, tmp_path: Path, suffix: str) -> None:
    """With a byte order mark and their line endings; YAML reads JSON, too."""
    file = tmp_path / f"settings{suffix}"
    content = json.dumps({**shipped_settings, "region": "eu-west-1"}, indent=2).replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert read_settings({"settings": str(file)}).region == "eu-west-1"


def test_broken_yaml_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("region: [")
    with pytest.raises(SettingsError, match=r"(?s)s\.yaml is not valid: .*line 1"):
        read_settings({"settings": str(tmp_path / "s.yaml")})


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_file_that_is_no_utf_8_or_says_a_thing_twice_is_told_so(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"s{suffix}"
    file.write_text('{"region": "eu-west-1"}', "utf-16")  # as PowerShell's > does
    with pytest.raises(SettingsError, match=rf"s\{suffix} is not text in UTF-8: save it in UTF-8$"):
        read_settings({"settings": str(file)})
    file.write_text('{"endpoints": {"a": {"model": "gpt2"}, "b": {}, "a": {}}}')
    with pytest.raises(SettingsError, match=rf"s\{suffix} has 'a' twice in one place, .*: keep one$"):
        read_settings({"settings": str(file)})


def test_an_anchor_of_yaml_may_be_merged_and_overridden(tmp_path: Path) -> None:
    file = tmp_path / "s.yml"
    file.write_text(
        "region: eu-west-1\nimage: {transformers: 5.23.0}\nendpoints:\n"
        "  a: &a {model: whisper, environment: {X: y}}\n  b: {<<: *a, model: bigscience/bloom-560m}\n"
    )
    found = read_settings({"settings": str(file)}).endpoints
    assert [each.model for each in found.values()] == ["openai/whisper-base", "bigscience/bloom-560m"]
    assert found["a"].environment == found["b"].environment == {"X": "y"}


@pytest.mark.parametrize(
    ("endpoints", "problem"),
    [
        ({}, "endpoints: must not be empty"),
        ({"a": {"model": None}}, "endpoints.a.model: input should be a valid string, got null"),
        ({"a": {"hosting": {"kind": "serverless"}}}, "endpoints.a.model: field required"),
        (
            {"a": {"model": "whisper", "hosting": {"kind": "realtime", "instance_type": "ml.m5.large"}}},
            "endpoints.a.hosting: kind must be one of 'real-time', 'async', 'serverless', 'components', "
            "got \"realtime\"; did you mean 'real-time'?",
        ),
        (
            {"a": {"model": "whisper", "hosting": {"instance_type": "G5"}}},
            "endpoints.a.hosting.instance_type (G5): is not an instance type that SageMaker hosts endpoints on; did "
            "you mean 'ml.g5.xlarge'?",
        ),
        (
            {"a": {"model": "whisper", "hosting": {"instance_type": "ml.inf2.xlarge"}}},
            "endpoints.a.hosting.instance_type (ml.inf2.xlarge): computes with neuron, which this image family does "
            "not serve: take a type with NVIDIA GPUs, or one without accelerator",
        ),
    ],
)
def test_one_fault_is_one_problem_and_no_warning_is_of_a_model_that_nobody_named(
    shipped_settings: Any, endpoints: Any, problem: str
) -> None:
    shipped_settings["endpoints"] = endpoints
    assert problems(shipped_settings) == [problem]
    assert [line for line in plan_of(shipped_settings)["warnings"] if "'unknown'" in line] == []


def test_context_values_override_single_settings(shipped_settings: Any) -> None:
    shipped_settings["endpoints"]["model"]["revision"] = "abc"
    settings = read(
        shipped_settings, model="whisper", transformers="5.5.3", instance_type="ml.c5.xlarge", region="eu-central-1"
    )
    whisper = settings.endpoints["model"]
    assert (whisper.model, whisper.revision) == ("openai/whisper-base", None), "the old model's revision must not stay"
    assert whisper.hosting.instance_type == "ml.c5.xlarge"
    assert (settings.image.transformers, settings.region) == ("5.5.3", "eu-central-1")


def test_a_model_override_needs_exactly_one_endpoint(shipped_settings: Any) -> None:
    shipped_settings["endpoints"]["second"] = {"model": "whisper"}
    (problem,) = problems(shipped_settings, model="whisper")
    assert problem.startswith("-c model=whisper: goes to the one endpoint there is, and the settings have 2")


def test_all_problems_are_reported_at_once_each_with_its_place(shipped_settings: Any) -> None:
    shipped_settings["regoin"] = shipped_settings.pop("region")
    shipped_settings["image"]["transformers"] = "5.23"
    bloom = shipped_settings["endpoints"]["model"]
    bloom["model"] = "not a model"
    bloom["environment"] = {"HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz"}
    bloom["hosting"] = {"kind": "real-time", "instance_type": "ml.g5.xlrage", "instances": "two", "instance": 1}
    found = problems(shipped_settings)
    expected = [
        "region: is not named, and the CDK CLI has none",
        "regoin: is not a setting; did you mean 'region'?",
        "image.transformers (5.23): is not an exact transformers release: write all three numbers, as '5.23.0'",
        "endpoints.model.model (not a model): is not a Hub model id",
        "endpoints.model.environment: 'HF_TOKEN' holds a literal Hub token",
        "endpoints.model.hosting.instance_type (ml.g5.xlrage): is not an instance type that SageMaker hosts endpoints "
        "on; did you mean 'ml.g5.xlarge'?",
        'endpoints.model.hosting.instances: input should be a valid integer, got "two"',
        "endpoints.model.hosting.instance: is not a setting; did you mean 'instances'?",
    ]
    for beginning in expected:
        assert any(problem.startswith(beginning) for problem in found), (beginning, found)
    assert len(found) == len(expected)


def test_settings_without_a_region_take_the_one_of_the_cdk_cli_and_no_other_does(
    shipped_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"extended-dlc": shipped_settings}
    assert read_settings(named, cli_region="eu-west-3").region == "us-east-1"
    without = {"extended-dlc": {key: each for key, each in shipped_settings.items() if key != "region"}}
    assert read_settings(without, cli_region="eu-west-3").region == "eu-west-3"
    with pytest.raises(SettingsError, match=r"region.*: is not named.* write it as 'us-east-1'"):
        read_settings(without)
    # login, doctor and plan see what the app sees
    (tmp_path / "cdk.json").write_text(json.dumps({"context": without}))
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert raw_settings(None, folder=tmp_path).content["region"] == "eu-west-3"


def test_a_contradiction_is_reported_beside_a_misspelling(shipped_settings: Any) -> None:
    shipped_settings["rejoin"] = 1
    shipped_settings["endpoints"]["big"] = {"model": "bloom", "hosting": {"instance_type": "ml.g5.xlarge"}}
    found = problems(shipped_settings)
    assert any(problem.startswith("rejoin: is not a setting") for problem in found)
    assert any(
        problem.startswith("endpoints.model.hosting.instance_type (ml.m5.xlarge): computes with cpu and the image is")
        and "the image is made for gpu, which endpoints.big computes with" in problem
        for problem in found
    )


@pytest.mark.parametrize(
    ("base", "instance_type", "rule"),
    [
        ("x/y:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04", "ml.m5.xlarge", "take one with NVIDIA GPUs"),
        ("x/y:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04", "ml.g5.xlarge", "take one without GPU"),
        (None, "ml.inf2.xlarge", "computes with neuron"),
        (None, "ml.m6g.xlarge", "is arm64 and the image is built for x86_64"),
    ],
)
def test_an_image_that_cannot_run_on_the_instance_is_refused(
    shipped_settings: Any, base: str | None, instance_type: str, rule: str
) -> None:
    shipped_settings["image"]["base"] = base
    (problem,) = problems(shipped_settings, instance_type=instance_type)
    assert problem.startswith(f"endpoints.model.hosting.instance_type ({instance_type})")
    assert rule in problem


def test_a_base_of_unknown_making_runs_on_any_instance(shipped_settings: Any) -> None:
    shipped_settings["image"]["base"] = "registry.example.com/ours:1"
    assert read(shipped_settings, instance_type="ml.g5.xlarge").image.base == "registry.example.com/ours:1"


def test_a_region_without_the_default_base_is_refused_with_those_that_have_it(shipped_settings: Any) -> None:
    shipped_settings["region"] = "us-east-9"
    (problem,) = problems(shipped_settings)
    assert problem.startswith("image.transformers (5.24.0): has no base in 'us-east-9'; did you mean 'us-east-")


def test_the_bases_region_can_differ_from_the_deployments(shipped_settings: Any) -> None:
    shipped_settings["image"]["base_region"] = "us-east-1"
    assert read(shipped_settings, region="ap-southeast-7").region == "ap-southeast-7"


@pytest.mark.parametrize("key", ["has_underscore", "x-", "x" * 60])
def test_an_endpoint_id_that_cannot_be_a_name_is_refused(shipped_settings: Any, key: str) -> None:
    shipped_settings["endpoints"] = {key: {"model": "bloom"}}
    (problem,) = problems(shipped_settings)
    assert problem.startswith(f"endpoints.{key} (extended-dlc-{key}): cannot be an endpoint name")


def test_a_release_that_the_server_cannot_run_on_is_refused(shipped_settings: Any) -> None:
    (problem,) = problems(shipped_settings, transformers="4.24.0")
    assert problem.startswith("image.transformers (4.24.0): is older than the native server carries: take 4.46.1 or")


def test_a_base_with_an_old_python_is_refused(shipped_settings: Any) -> None:
    base = "x/y:1.10.2-transformers4.17.0-cpu-py38-ubuntu20.04"
    shipped_settings["image"]["base"] = base
    (problem,) = problems(shipped_settings)
    assert problem.startswith(f"image.transformers (5.24.0): cannot go onto {base}: it has Python 3.8 and the native")
    assert "the newest base that carries 5.24.0 is huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu" in problem


@pytest.mark.parametrize(
    ("environment", "rule"),
    [
        ({"9": "x"}, "'9' cannot be the name of a variable"),
        ({"HF_MODEL_ID": "x"}, "'HF_MODEL_ID' is set by the model's id"),
        ({"A": "x" * 1025}, "'A' is over SageMaker's 1024 bytes"),
        ({"A": "token hf_abcdefghijklmnopqrstuvwxyz"}, "'A' holds a literal Hub token"),
        ({f"V{n}": "x" for n in range(98)}, "has 98 variables, SageMaker takes 100"),
        ({f"V{n}": "x" * 1000 for n in range(40)}, "is over SageMaker's 32 KB in total"),
    ],
)
def test_an_environment_that_sagemaker_refuses_or_that_leaks_is_refused(
    shipped_settings: Any, environment: dict[str, str], rule: str
) -> None:
    shipped_settings["endpoints"]["model"]["environment"] = environment
    (problem,) = problems(shipped_settings)
    assert rule in problem


def test_a_build_file_that_is_not_there_is_named(shipped_settings: Any) -> None:
    shipped_settings["image"]["build"] = {"pip_config": "/nowhere/pip.conf"}
    (problem,) = problems(shipped_settings)
    assert problem.startswith("image.build.pip_config (/nowhere/pip.conf): is not a file")


def test_a_stock_image_is_chosen_by_its_release_and_must_know_the_model(shipped_settings: Any) -> None:
    shipped_settings["image"] = {"kind": "stock", "transformers": "4.51.3"}
    assert read(shipped_settings).image.kind == "stock"
    shipped_settings["image"]["transformers"] = "4.17.0"
    (problem,) = problems(shipped_settings)
    assert problem.startswith(
        "endpoints.model.model (bigscience/bloom-560m): transformers 4.17.0 in huggingface-pytorch-"
    )
    assert "cannot load model type 'bloom': needs >= 4.20.0" in problem


def test_a_release_without_a_stock_image_is_refused_with_those_there_are(shipped_settings: Any) -> None:
    shipped_settings["image"] = {"kind": "stock", "transformers": "5.23.0"}
    (problem,) = problems(shipped_settings)
    assert "has published no huggingface-pytorch-inference image for cpu with transformers 5.23.0" in problem
    assert "4.51.3, 5.5.3, or extend one" in problem


def test_a_model_that_the_installed_release_lacks_is_refused_before_anything_is_built(shipped_settings: Any) -> None:
    shipped_settings["endpoints"]["model"]["model_type"] = "transfo-xl"
    (problem,) = problems(shipped_settings)
    assert "transformers 5.24.0 cannot load model type 'transfo-xl': it left after 4." in problem


def test_an_unknown_model_type_is_not_wrong(shipped_settings: Any) -> None:
    shipped_settings["endpoints"]["model"]["model_type"] = "from-next-year"
    assert read(shipped_settings).endpoints["model"].model_type == "from-next-year"


def test_a_published_image_needs_its_repository_and_tag(shipped_settings: Any) -> None:
    shipped_settings["image"] = {"kind": "ecr", "repository": "ours", "tga": "1"}
    assert problems(shipped_settings) == [
        "image.tga: is not a setting; did you mean 'tag'?",
        "image.tag: is required, unless 'parameter' names the image",
    ]


def test_an_unknown_kind_of_image_names_the_kinds(shipped_settings: Any) -> None:
    shipped_settings["image"]["kind"] = "docker"
    (problem,) = problems(shipped_settings)
    assert problem.startswith("image: kind must be one of 'extended', 'stock', 'ecr'")


def test_the_stock_server_is_refused_with_a_release_it_cannot_run(shipped_settings: Any) -> None:
    shipped_settings["image"]["server"] = "stock"
    shipped_settings["image"]["base"] = "x/y:2.6.0-transformers4.51.3-cpu-py312-ubuntu22.04"
    (problem,) = problems(shipped_settings)
    assert problem.startswith("image.transformers (5.24.0): ")
    assert 'the native server (server="native")' in problem


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("name", "1st", "name (1st): cannot be the name of a stack: use letters, digits and hyphens, a letter first"),
        ("region", "Virginia", "region (Virginia): is not an AWS region: write it as 'us-east-1'"),
    ],
)
def test_what_cannot_be_a_stack_or_a_region_is_refused(
    shipped_settings: Any, setting: str, value: str, rule: str
) -> None:
    shipped_settings[setting] = value
    assert rule in problems(shipped_settings)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        (
            {"weights": {"kind": "git"}},
            "endpoints.model.weights: kind must be one of 'hub', 'mirrored', 's3', 'local'",
        ),
        (
            {"weights": {"kind": "mirrored"}, "revision": None},
            "endpoints.model.revision (None): is not a commit",
        ),
        ({"weights": {"token_secrt": "x"}}, "endpoints.model.weights.token_secrt: is not a setting; did you mean"),
        ({"weights": {"kind": "s3", "bucket": "b"}}, "endpoints.model.weights.key: field required"),
        (
            {"weights": {"kind": "local", "folder": "nowhere"}},
            "endpoints.model.weights.folder (nowhere): is not",
        ),
        ({"weights": {"requirements": ["a=1"]}}, "endpoints.model.weights: requirement 'a=1' cannot be read"),
        (
            {"environment": {"HF_TRUST_REMOTE_CODE": "true"}},
            "endpoints.model.environment: 'HF_TRUST_REMOTE_CODE' is set by the model's trust_remote_code: set it there",
        ),
    ],
)
def test_weights_that_cannot_be_had_are_refused(shipped_settings: Any, endpoint: Any, problem: str) -> None:
    shipped_settings["endpoints"]["model"].update(endpoint)
    (found,) = problems(shipped_settings)
    assert found.startswith(problem)


def test_a_mirror_belongs_to_the_model_that_it_was_said_of(shipped_settings: Any) -> None:
    shipped_settings["endpoints"]["model"].update(revision=COMMIT, weights={"kind": "mirrored"})
    assert read(shipped_settings).endpoints["model"].weights.kind == "mirrored"
    assert read(shipped_settings, model="whisper").endpoints["model"].weights.kind == "hub"


def test_a_vllm_image_wants_gpus_and_a_release_that_vllm_is_not_moved_back_to(shipped_settings: Any) -> None:
    shipped_settings["image"]["family"] = "vllm"
    assert any("(image.family is vllm)" in problem for problem in problems(shipped_settings))
    shipped_settings["image"]["transformers"] = "4.46.3"
    found = problems(shipped_settings, instance_type="ml.g6.xlarge")
    assert any("image.transformers (4.46.3): goes onto no vLLM image in" in problem for problem in found)


# what the command line says


def test_a_context_key_that_nothing_reads_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "cdk.json").write_text('{"context": {"team": "speech"}}')
    known = keys_of_context_files(tmp_path)
    fine = ("model", "settings", "team", "aws:cdk:x", "@aws-cdk/core:y", "availability-zones:z")
    check_context(dict.fromkeys(fine, "x"), known=known)
    with pytest.raises(SettingsError, match=r"-c modle: is not a setting; did you mean 'model'\?"):
        check_context({"modle": "x"}, known=known)
    with pytest.raises(SettingsError, match=r"-c colour: is not a setting; there are settings, model, transformers"):
        check_context({"colour": "x"}, known=known)


def test_a_boundary_of_the_context_that_the_cdk_cannot_fill_in_is_a_sentence() -> None:
    arn = {"arn": "arn:aws:iam::${AWS::AccountId}:policy/x"}
    with pytest.raises(SettingsError, match=r"permissionsBoundary .*has a placeholder.*write the account's number"):
        check_context({"@aws-cdk/core:permissionsBoundary": arn}, known=())
    check_context({"@aws-cdk/core:permissionsBoundary": {"name": "cdk-${Qualifier}-boundary"}}, known=())


def test_the_variables_and_the_options_of_plan_are_the_same_overrides(
    shipped_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cdk.json").write_text(json.dumps({"context": {"extended-dlc": shipped_settings}}))
    values = {"model": "whisper", "transformers": "5.5.3", "instance_type": "ml.c5.xlarge", "region": "eu-west-1"}
    by_option = raw_settings(None, folder=tmp_path, overrides=values).content
    for key, value in values.items():
        monkeypatch.setenv(f"EXTENDED_DLC_{key.upper()}", value)
    assert raw_settings(None, folder=tmp_path).content == by_option
    assert by_option["endpoints"]["model"]["model"] == "whisper"
    assert by_option["image"]["transformers"] == "5.5.3"


def test_another_region_on_the_command_line_does_not_part_the_base_from_its_log_in(shipped_settings: Any) -> None:
    """The CDK CLI hands `-c` values to the app alone, and the log-in comes before it."""
    moved = read_all({"extended-dlc": shipped_settings, "region": "eu-west-1"})
    assert moved.settings.region == "eu-west-1"
    assert ".us-east-1." in moved.decision.image.base
    assert moved.decision.image.base == read_all({"extended-dlc": shipped_settings}).decision.image.base
    china = read_all({"extended-dlc": shipped_settings, "region": "cn-north-1"})
    assert ".cn-north-1." in china.decision.image.base, "another partition has registries of its own"


def test_settings_without_a_region_have_the_base_of_the_cli_s_whatever_the_command_line_says(
    shipped_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del shipped_settings["region"]
    moved = read_all({"extended-dlc": shipped_settings, "region": "eu-west-1"}, cli_region="us-west-2")
    assert moved.settings.region == "eu-west-1"
    assert ".us-west-2." in moved.decision.image.base
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    (tmp_path / "cdk.json").write_text(json.dumps({"context": {"extended-dlc": shipped_settings}}))
    assert decided(raw_settings(None, folder=tmp_path)).decision.image.base == moved.decision.image.base
    planned = decided(raw_settings(None, folder=tmp_path, overrides={"region": "eu-west-1"}))
    assert planned.decision.image.base == moved.decision.image.base


def test_a_default_that_does_not_do_is_reported_beside_another_fault(shipped_settings: Any) -> None:
    large = {"model": "bigscience/bloom-7b1"}
    shipped_settings["endpoints"] = {"large": large, "other": {"model": "bloom", "tsk": "x"}}
    found = problems(shipped_settings)
    assert any(problem.startswith("endpoints.large.hosting.instance_type (ml.m5.xlarge): cannot") for problem in found)
    assert any(problem.startswith("endpoints.other.tsk: is not a setting") for problem in found)
    shipped_settings["endpoints"] = {"large": {**large, "hosting": {"instance_type": 5}}}
    assert not any("ml.m5.xlarge" in problem for problem in problems(shipped_settings)), "nobody asked for that type"


def test_no_fault_hides_another_of_whatever_kind(shipped_settings: Any) -> None:
    """Of a field, of an option that was not said, of an object as a whole, of an ARN, and of a decision."""
    shipped_settings["image"] = {
        "kind": "ecr",
        "repository": "arn:aws:ecr:eu-west-1:111111111111:repository/x",
        "tag": "1",
    }
    parts = {"x": {"memory_mb": 99_999_999}, "Y_z": {"memory_mb": 1}}
    shipped_settings["endpoints"] = {
        "a": {
            "model": "bloom",
            "role": "my-role",
            "environment": {"1": "x"},
            "hosting": {"kind": "async", "scaling": {"maximum": 0, "minimum": 0}},
            "verify": {"tolerance": 5},
        },
        "b": {"model": "whisper", "hosting": {"kind": "components", "maximum": 1, "components": parts}},
    }
    found = problems(shipped_settings)
    expected = (
        "image.repository (arn:aws:ecr:eu-west-1:111111111111:repository/x): is in eu-west-1",
        "endpoints.a.role (my-role): is not an ARN",
        "endpoints.a.environment: '1' cannot be the name of a variable",
        "endpoints.a.hosting.scaling.minimum (0): must not exceed 'maximum' (0)",
        "endpoints.a.verify.tolerance (5.0): must be from 0 to 1",
        "endpoints.b.hosting.components.x.memory_mb (99999999): is more than ml.m5.xlarge has",
        "endpoints.b.hosting.components.Y_z (Y_z): cannot be an endpoint name",
        "endpoints.b.hosting.components.Y_z.memory_mb (1): must be 128 or more",
    )
    for beginning in expected:
        assert any(problem.startswith(beginning) for problem in found), (beginning, found)
    assert len(found) == len(expected)


# ARNs and tags


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        (
            {"role": "arn:aws-cn:iam::111111111111:role/x"},
            "role (arn:aws-cn:iam::111111111111:role/x): is of the partition aws-cn, and us-east-1 is of aws",
        ),
        ({"role": "my-role"}, "role (my-role): is not an ARN: write it as 'arn:aws:iam:"),
        (
            {"permissions_boundary": "arn:aws:iam::${AWS::AccountId}:policy/x"},
            "permissions_boundary (arn:aws:iam::${AWS::AccountId}:policy/x): has a placeholder",
        ),
        (
            {"hosting": {"kind": "async", "error_topic": "arn:aws:sns:eu-west-1:111111111111:x"}},
            "hosting.error_topic (arn:aws:sns:eu-west-1:111111111111:x): is in eu-west-1, and the endpoint in us-",
        ),
        (
            {"encryption_key": "arn:aws:sns:us-east-1:111111111111:x"},
            "encryption_key (arn:aws:sns:us-east-1:111111111111:x): is an ARN of sns, and it has to be one of kms",
        ),
        (
            {"weights": {"token_secret": "arn:aws:secretsmanager:eu-west-1:111111111111:secret:x-abcdef"}},
            "weights.token_secret (arn:aws:secretsmanager:eu-west-1:111111111111:secret:x-abcdef): is in eu-west-1",
        ),
    ],
)
def test_an_arn_of_another_service_region_or_partition_is_refused(
    shipped_settings: Any, endpoint: Any, problem: str
) -> None:
    shipped_settings["endpoints"]["model"].update(endpoint)
    (found,) = problems(shipped_settings)
    assert found.startswith(f"endpoints.model.{problem}")


@pytest.mark.parametrize(
    ("tags", "rule"),
    [
        ({"aws:owner": "x"}, "has 'aws:owner', and keys that begin with 'aws:' are AWS's own"),
        ({str(number): "x" for number in range(51)}, "has 51 tags, and AWS takes 50"),
        ({"k" * 129: "x"}, "a key of 129 characters, and AWS takes 1 to 128"),
        ({"a!": "x"}, "has 'a!', and a tag takes letters"),
    ],
)
def test_tags_that_aws_would_refuse_are_refused(shipped_settings: Any, tags: Any, rule: str) -> None:
    shipped_settings["tags"] = tags
    (found,) = problems(shipped_settings)
    assert found.startswith("tags")
    assert rule in found


def test_a_base_that_is_a_tag_alone_is_refused_with_the_whole_reference(shipped_settings: Any) -> None:
    shipped_settings["image"]["base"] = "2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04"
    (found,) = problems(shipped_settings)
    assert found.startswith("image.base (2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04): is a tag alone: write")
    assert "/huggingface-pytorch-inference:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04" in found


def test_two_names_that_differ_by_case_are_refused(shipped_settings: Any) -> None:
    shipped_settings["endpoints"]["Model"] = {"model": "bloom"}
    (found,) = problems(shipped_settings)
    assert "'extended-dlc-Model' and 'extended-dlc-model' differ by case only" in found


# what the Hub said


def test_what_is_noted_beside_the_settings_is_read_in_the_same_synth(tmp_path: Path, shipped_settings: Any) -> None:
    shipped_settings["endpoints"]["model"] = {"model": "someone/x"}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(shipped_settings))
    before = read_all({"settings": str(file)})
    assert any(
        "nobody here knows of 'someone/x' its model type, size and whether" in n.text for n in before.decision.notes
    )
    answer = {"asked": "main", "revision": "c" * 40, "model_type": "bert", "parameters": 10**8, "gated": True}
    (tmp_path / "mine.lookups.json").write_text(json.dumps({"extended-dlc:model:someone/x": answer}))
    with pytest.raises(SettingsError, match=r"endpoints\.model\.model \(someone/x\): is private or gated"):
        read_all({"settings": str(file)})
