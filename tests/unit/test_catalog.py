"""The catalogue of images and its commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from extended_dlc.cli import main
from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import INFERENCE, TRAINING, VLLM, dlc_images, find_image, read_tag, search_images

NEWEST = f"{INFERENCE}:2.6.0-transformers5.5.3-gpu-py312-cu124-ubuntu22.04"
PUBLIC = "public.ecr.aws/deep-learning-containers"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["catalog", *arguments])


def test_the_catalogue_has_inference_training_vllm_and_public_images() -> None:
    repositories = {image.repository for image in dlc_images()}
    assert repositories == {INFERENCE, TRAINING, VLLM, "pytorch", "pytorch-inference", "pytorch-training"}


def test_no_reference_is_there_twice() -> None:
    names = [image.name for image in dlc_images()]
    assert len(names) == len(set(names))


def test_only_the_families_of_hugging_face_have_transformers() -> None:
    for image in dlc_images():
        assert (image.transformers is not None) == image.repository.startswith("huggingface-")


def test_what_a_tag_says_is_what_the_catalogue_says() -> None:
    for image in dlc_images():
        mirrored = read_tag(f"registry.example.com/mirror-of-{image.repository}:{image.tag}")
        assert mirrored is not None, image.name
        assert (mirrored.accelerator, mirrored.cuda or image.cuda) == (image.accelerator, image.cuda), image.name
        facts = read_tag(image.name)
        assert facts is not None, image.name
        assert (facts.torch, facts.vllm, facts.transformers) == (image.torch, image.vllm, image.transformers)
        assert facts.accelerator == image.accelerator
        assert facts.python in (None, image.python)
        assert facts.cuda == image.cuda


def test_an_image_of_the_public_registry_needs_no_login_and_is_the_same_everywhere() -> None:
    images = [image for image in dlc_images() if not image.login]
    assert {image.repository for image in images} == {"pytorch", "pytorch-inference", "pytorch-training"}
    for image in images:
        assert image.uri("us-east-1") == image.uri("cn-north-1") == f"{PUBLIC}/{image.repository}:{image.tag}"


@pytest.mark.parametrize(
    ("region", "registry"),
    [
        ("cn-northwest-1", "727897471807.dkr.ecr.cn-northwest-1.amazonaws.com.cn"),
        ("us-gov-west-1", "442386744353.dkr.ecr.us-gov-west-1.amazonaws.com"),
        ("mx-central-1", "637423239942.dkr.ecr.mx-central-1.amazonaws.com"),
    ],
)
def test_vllm_images_are_in_china_govcloud_and_regions_to_opt_into(region: str, registry: str) -> None:
    newest = dlc_images(VLLM, region=region)[-1]
    assert newest.uri(region) == f"{registry}/{VLLM}:0.30.0-transformers5.15.0-gpu-py312-cu130-ubuntu24.04"
    assert (newest.vllm, newest.torch, newest.accelerator) == ("0.30.0", None, "gpu")


def test_a_tag_of_vllm_tells_vllm_where_others_tell_torch() -> None:
    tag = "0.30.0-transformers5.20.0-gpu-py312-cu130-ubuntu24.04-v1.0"
    known, other = read_tag(f"registry.example.com/{VLLM}:{tag}"), read_tag(f"registry.example.com/ours:{tag}")
    assert known is not None
    assert other is not None
    assert (known.vllm, known.torch, known.moving) == ("0.30.0", None, False)
    assert (other.vllm, other.torch) == (None, None), "no torch of a DLC is below 1"


def test_show_says_that_nothing_tells_the_torch_of_a_vllm_image() -> None:
    output = run("show", dlc_images(VLLM)[-1].name, "--region", "eu-west-1").output
    assert "vLLM          0.30.0" in output
    assert "listed by     AWS's own list (docs/src/data of aws/deep-learning-containers)" in output
    assert "torch         not told by the tag" in output


def test_no_hugging_face_image_is_public() -> None:
    assert all(image.login for image in dlc_images() if image.repository.startswith("huggingface-"))


def test_filters_narrow_the_list() -> None:
    gpu = dlc_images(INFERENCE, accelerator="gpu")
    assert {image.accelerator for image in gpu} == {"gpu"}
    assert len(gpu) * 2 == len(dlc_images(INFERENCE))
    # newer training images are in fewer regions than older ones
    assert 0 < len(dlc_images(TRAINING, region="ap-south-2")) < len(dlc_images(TRAINING))


@pytest.mark.parametrize(
    "reference",
    [NEWEST, f"763104351884.dkr.ecr.us-east-1.amazonaws.com/{NEWEST}", f"{NEWEST}@sha256:{'0' * 64}"],
)
def test_an_image_is_found_by_repository_and_tag_with_or_without_registry(reference: str) -> None:
    assert find_image(reference).name == NEWEST


def test_an_image_is_found_by_its_parts() -> None:
    assert find_image(INFERENCE, NEWEST.split(":")[1]).name == NEWEST


def test_the_catalogue_has_every_tag_of_awss_own_list() -> None:
    listed = [(row, tag) for row in table("dlc_images")["dlc_images"] for tag in row["tags"]]
    known = {(image.repository, image.tag, image.login): image for image in dlc_images()}
    assert len(listed) > 60
    for row, tag in listed:
        image = known[row["repository"], tag, True]
        assert (image.transformers, image.python, image.cuda) == (row["transformers"], row["python"], row["cuda"]), tag
        assert image.regions
        assert ((row["repository"], tag, False) in known) == row["public"]


def test_the_new_form_of_training_tags_is_read_and_the_catalogue_fills_in_what_it_does_not_say() -> None:
    tag = "2.11-transformers5.13-cu130-amzn2023-sagemaker"
    known, mirror = read_tag(f"{TRAINING}:{tag}"), read_tag(f"registry.example.com/ours:{tag}")
    assert known is not None
    assert mirror is not None
    assert (known.torch, known.transformers, known.python, known.cuda) == ("2.11", "5.13.1", "py312", "cu130")
    assert (mirror.torch, mirror.transformers, mirror.python, mirror.cuda) == ("2.11", "5.13", None, "cu130")


def test_a_short_tag_that_tells_no_cuda_gets_that_of_awss_own_list() -> None:
    facts = read_tag("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-gpu-py312")
    assert facts is not None
    assert facts.cuda == "cu124"


def test_each_row_says_who_lists_the_image() -> None:
    rows = table("images")["images"]
    assert {row["source"] for row in rows} == {"sdk", "dlc", "sdk+dlc", "hand"}
    assert all(len(row["commit"]) == 40 for row in table("dlc_images")["dlc_images"])


def test_a_public_image_is_found_by_its_full_reference_and_the_private_one_without() -> None:
    tag = "pytorch:2.13-cpu-amzn2023-sagemaker"
    assert not find_image(f"{PUBLIC}/{tag}").login
    assert find_image(tag).login


def test_an_unknown_tag_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean '2\.6\.0-transformers5\.5\.3-gpu-py312-cu124-ubuntu22\.04'\?"):
        find_image(NEWEST.replace("5.5.3", "5.5.4"))


def test_an_unknown_repository_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=rf"did you mean '{INFERENCE}'\?: write REPOSITORY:TAG"):
        find_image(NEWEST.replace("pytorch", "pytorhc"))


def test_the_image_that_the_source_lacks_is_added() -> None:
    assert [image.accelerator for image in search_images("inference 4.46.1")] == ["cpu", "gpu"]


def test_a_search_takes_every_word() -> None:
    assert [image.name for image in search_images("GPU 5.5.3")] == [NEWEST]
    assert search_images("5.5.3 nowhere") == []


# the commands


def test_list_prints_one_image_a_line_in_columns() -> None:
    lines = run("list", "--repository", INFERENCE, "--accelerator", "gpu").output.splitlines()
    assert len(lines) == 1 + len(dlc_images(INFERENCE, accelerator="gpu"))
    assert lines[0].split() == ["REPOSITORY", "TAG", "TORCH", "TRANSFORMERS", "PYTHON", "CUDA", "LOGIN"]
    assert lines[-1].split() == [*NEWEST.split(":"), "2.6.0", "5.5.3", "3.12", "12.4", "needed"]
    assert len({line.index(line.split()[1]) for line in lines}) == 1, "the tags must begin in one column"


def test_list_as_json_has_the_full_reference_when_the_region_is_given() -> None:
    rows = json.loads(run("list", "--region", "cn-north-1", "--repository", INFERENCE, "--json").output)
    assert rows[-1]["uri"] == f"727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn/{NEWEST}"
    assert "uri" not in json.loads(run("list", "--json").output)[0]


@pytest.mark.parametrize(
    ("option", "given", "nearest"),
    [("--region", "us-east-11", "us-east-1"), ("--repository", "huggingface-pytorch-inferense", INFERENCE)],
)
def test_list_refuses_an_unknown_filter_with_the_nearest(option: str, given: str, nearest: str) -> None:
    result = run("list", option, given)
    assert result.exit_code == 1
    assert f"'{option}' ({given}) is not in the catalogue; did you mean '{nearest}'?" in result.output


def test_show_gives_the_reference_what_is_inside_and_the_login() -> None:
    result = run("show", NEWEST, "--region", "eu-south-1")
    assert result.exit_code == 0
    assert f"692866216735.dkr.ecr.eu-south-1.amazonaws.com/{NEWEST}" in result.output
    assert "login         needed, to account 692866216735 in eu-south-1" in result.output
    assert "CUDA          12.4" in result.output


def test_show_says_that_a_public_image_needs_no_login() -> None:
    result = run("show", f"{PUBLIC}/pytorch:2.13.0-cpu-amzn2023-sagemaker", "--region", "eu-south-1", "--json")
    found = json.loads(result.output)
    assert found["login"] is False
    assert found["uri"].startswith(f"{PUBLIC}/pytorch:")


@pytest.mark.parametrize(
    ("image", "region", "why"),
    [
        (NEWEST, "us-east-11", "is not published in 'us-east-11'; did you mean 'us-east-1'?"),
        (NEWEST.replace("5.5.3", "5.5.9"), "us-east-1", "did you mean '2.6.0-transformers5.5.3-gpu"),
    ],
)
def test_show_says_why_not_and_fails(image: str, region: str, why: str) -> None:
    text = run("show", image, "--region", region)
    assert text.exit_code == 1
    assert why in text.output
    as_json = run("show", image, "--region", region, "--json")
    assert as_json.exit_code == 1
    assert why in json.loads(as_json.output)["error"]


def test_search_fails_when_nothing_is_found() -> None:
    assert run("search", "5.5.3", "gpu").exit_code == 0
    nothing = run("search", "nowhere")
    assert nothing.exit_code == 1
    assert "no image has 'nowhere' in its name" in nothing.output
    assert run("search", "nowhere", "--json").exit_code == 1


def test_a_list_without_an_image_says_so_and_fails() -> None:
    asked = ("list", "--repository", "huggingface-pytorch-training", "--accelerator", "cpu")
    nothing = run(*asked)
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert "no image is of huggingface-pytorch-training and cpu: leave an option out" in nothing.output
    as_json = run(*asked, "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (1, [])


def test_the_command_starts_without_the_libraries_of_the_others() -> None:
    code = (
        "import sys; from extended_dlc.cli import main\n"
        "try: main(['catalog', 'list'])\n"
        "finally: print(set(sys.modules) & {'aws_cdk', 'boto3', 'botocore', 'pydantic', 'jsii'}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"


def test_a_refresh_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from extended_dlc import refresh

    def fail(say: object) -> None:
        raise refresh.RefreshError("no network: try again")

    monkeypatch.setattr(refresh, "refresh", fail)
    result = run("refresh")
    assert result.exit_code == 1
    assert result.output.strip() == "Error: no network: try again"


def test_refresh_prints_its_tables_as_json_and_its_progress_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [{"table": "images", "rows": 166, "changed": False, "source": "sagemaker-core 2.27.0"}]

    def refreshed(say: Callable[[str], None], dlc_repository: str) -> list[dict[str, Any]]:
        assert dlc_repository == "../clone"
        say("images: reading …")
        return tables

    monkeypatch.setattr("extended_dlc.refresh.refresh", refreshed)
    result = CliRunner().invoke(main, ["catalog", "refresh", "--json", "--dlc", "../clone"])
    assert json.loads(result.stdout) == tables
    assert "images: reading …" in result.stderr
