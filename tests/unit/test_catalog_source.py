"""The catalogue against `sagemaker.core.image_uris.retrieve`, the function of AWS's own SDK.

The committed sample of its answers is compared in every run. With EXTENDED_DLC_SAGEMAKER_CORE=1 the SDK is installed in
a folder of its own and asked for every image and region; EXTENDED_DLC_SAGEMAKER_CORE=write replaces the sample too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.facts._tables import table
from extended_dlc.facts.catalog import DlcImage, dlc_images

SAMPLE = Path(__file__).parent / "data" / "sagemaker_core_answers.json"
OPT_IN = os.environ.get("EXTENDED_DLC_SAGEMAKER_CORE", "")

# runs where sagemaker-core is: asks for every image of its own configuration that we list the like of, in every region
ASK = """
import functools, json, sys
from sagemaker.core import image_uris

# reads botocore's endpoints at each call, which is most of the time
image_uris.utils._botocore_resolver = functools.cache(image_uris.utils._botocore_resolver)
image_uris.config_for_framework = functools.cache(image_uris.config_for_framework)

regions = json.load(sys.stdin)
answers = []


def ask(framework, scope, version, accelerator, python=None, base=None):
    instance = "ml.g5.xlarge" if accelerator == "gpu" else "ml.m5.xlarge"
    for region in regions:
        try:
            uri = image_uris.retrieve(
                framework, region, version=version, py_version=python, instance_type=instance, image_scope=scope,
                base_framework_version=base,
            )
        except (ValueError, KeyError):
            continue
        answers.append([region, accelerator, uri])


for scope in ("inference", "training"):
    config = image_uris.config_for_framework("huggingface")[scope]
    for version, frameworks in config["versions"].items():
        for base, image in frameworks.items():
            if base.startswith("pytorch") and "container_version" in image:
                for accelerator in image["container_version"]:
                    ask("huggingface", scope, version, accelerator, image["py_versions"][0], base)
    config = image_uris.config_for_framework("pytorch")[scope]
    for version, image in config["versions"].items():
        if image["repository"] == f"pytorch-{scope}":
            for python in image["py_versions"]:
                if len(python) > 3:
                    for accelerator in ("cpu", "gpu"):
                        ask("pytorch", scope, version, accelerator, python)
for version, image in image_uris.config_for_framework("huggingface-vllm")["inference"]["versions"].items():
    ask("huggingface-vllm", "inference", version, "gpu", image["py_versions"][0])
for version in image_uris.config_for_framework("pytorch-amzn2023")["training"]["versions"]:
    for accelerator in ("cpu", "gpu"):
        ask("pytorch-amzn2023", "training", version, accelerator)
json.dump(answers, sys.stdout)
"""


def by_name(uri: str) -> str:
    return uri.split("/", 1)[1]


def image_of(uri: str) -> DlcImage | None:
    return next((image for image in dlc_images() if image.login and image.name == by_name(uri)), None)


def differences(answers: list[list[str]]) -> list[str]:
    """Where the catalogue says anything else than these answers."""
    found = []
    for region, accelerator, uri in answers:
        image = image_of(uri)
        if image is None:
            found.append(f"{by_name(uri)} is not in the catalogue")
        elif region not in image.regions:
            found.append(f"{image.name} is not published in {region} by the catalogue")
        elif (image.uri(region), image.accelerator) != (uri, accelerator):
            found.append(f"{image.uri(region)} for {image.accelerator} by the catalogue, {uri} for {accelerator}")
    return sorted(set(found))


@pytest.fixture(scope="session")
def sdk_answers(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    if not OPT_IN:
        pytest.skip("set EXTENDED_DLC_SAGEMAKER_CORE=1 to install sagemaker-core (450 MB, a minute) and ask it")
    release = re.search(r"sagemaker-core (\S+),", table("images")["source"])
    assert release is not None
    folder = tmp_path_factory.mktemp("sagemaker-core")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, f"sagemaker-core=={release[1]}"], check=True, stderr=subprocess.DEVNULL)
    regions = json.dumps(sorted(table("images")["accounts"]))
    done = subprocess.run([python, "-c", ASK], input=regions, capture_output=True, text=True, check=True, cwd=folder)
    answers: list[list[str]] = json.loads(done.stdout)
    return answers


def test_the_committed_answers_of_the_sdk_are_the_catalogues() -> None:
    answers: list[list[str]] = json.loads(SAMPLE.read_text())["answers"]
    assert len(answers) > 150
    assert {by_name(uri).split(":")[0] for _, _, uri in answers} == {i.repository for i in dlc_images()}
    assert differences(answers) == []


def test_a_wrong_answer_would_be_noticed() -> None:
    answers: list[list[str]] = json.loads(SAMPLE.read_text())["answers"]
    region, accelerator, uri = answers[0]
    assert differences([[region, accelerator, "0" + uri[1:]]])
    assert differences([["us-east-9", accelerator, uri]])
    assert differences([[region, accelerator, f"{uri}-x"]])


def test_the_sdk_answers_as_the_catalogue_for_every_image_and_region(sdk_answers: list[list[str]]) -> None:
    print(f"{len(sdk_answers)} answers")
    if OPT_IN == "write":
        write_sample(sdk_answers)
    assert len(sdk_answers) > 4000
    assert differences(sdk_answers) == []


def test_the_catalogue_has_nothing_that_the_sdk_has_not_but_what_was_added_by_hand(
    sdk_answers: list[list[str]],
) -> None:
    answered = {(region, by_name(uri)) for region, _, uri in sdk_answers}
    ours = {(region, image.name) for image in dlc_images() if image.login for region in image.regions}
    corrections: list[dict[str, Any]] = table("image_corrections")["image_corrections"]
    added = {f"{row['repository']}:{row['tag']}" for one in corrections for row in one.get("add", ())}
    assert {name for _, name in ours - answered} - added == set()


def write_sample(answers: list[list[str]]) -> None:
    """Every image in one region, in turn, and the newest image of each repository in all of its regions."""
    names = list(dict.fromkeys(by_name(uri) for _, _, uri in answers))
    newest = {name.split(":")[0]: name for name in names}
    sample = []
    for number, name in enumerate(names):
        of_name = [answer for answer in answers if by_name(answer[2]) == name]
        sample += of_name if name in newest.values() else [of_name[number % len(of_name)]]
    rows = ",\n".join(
        f"    {json.dumps(answer)}" for answer in sorted(sample, key=lambda row: (by_name(row[2]), row[0]))
    )
    source = table("images")["source"].split(",")[0]
    SAMPLE.parent.mkdir(exist_ok=True)
    SAMPLE.write_text(
        f'{{\n  "source": "{source}, sagemaker.core.image_uris.retrieve",\n  "answers": [\n{rows}\n  ]\n}}\n'
    )
