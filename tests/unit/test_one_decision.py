"""The report, `plan` and the constructs decide the same of any settings, whatever the order of their keys."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extended_dlc.app.read import SettingsError
from stacks.endpoint_stack import EndpointStack
from tests.support.settings import decided, plan_of

Json = dict[str, Any]

MODELS = (
    "bigscience/bloom-560m",
    "bigscience/bloom-7b1",
    "bigscience/bloom",
    "openai/whisper-base",
    "google-bert/bert-base-uncased",
    "someone/unknown",
)
TYPES = ("ml.m5.xlarge", "ml.m5.4xlarge", "ml.t2.medium", "ml.g5.xlarge", "ml.g6.48xlarge", "ml.p4de.24xlarge")
LOOKED_UP = {
    "extended-dlc:model:google-bert/bert-base-uncased": {
        "asked": "main",
        "revision": "c" * 40,
        "model_type": "bert",
        "parameters": 110_000_000,
        "dtype": "float32",
        "gated": False,
        "task": "fill-mask",
    },
    "extended-dlc:model:someone/unknown": {"asked": "main", "revision": "d" * 40, "gated": True},
}


def mostly(right: list[Any], wrong: list[Any]) -> st.SearchStrategy[Any]:
    """A right value, and one time in eight or so a wrong one: of many faults, none shows what would be decided."""
    return st.integers(0, 7).flatmap(lambda draw: st.sampled_from(wrong if draw == 0 else right))


def some(**options: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Any of these options, or none."""
    return st.fixed_dictionaries({}, optional=options)


instance_types = st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=2, unique=True)
scalings = st.fixed_dictionaries(
    {"kind": st.just("invocations"), "maximum": mostly([3, 4], [0]), "requests_per_second": mostly([2.5], [0])},
    optional={"minimum": mostly([1, 2], [9])},
)
variants = st.fixed_dictionaries(
    {"name": mostly(["Large"], ["AllTraffic", "b_d"])},
    optional={
        "model": st.sampled_from(MODELS),
        "instance_type": st.sampled_from(TYPES),
        "environment": st.just({"A": "1"}),
        "scaling": scalings,
    },
)
real_time = some(
    kind=st.just("real-time"),
    instance_type=instance_types,
    instances=mostly([1, 2, 3], [0]),
    volume_gb=mostly([100], [600]),
    startup_timeout_seconds=mostly([600, 3600], [30]),
    scaling=scalings,
    variants=st.lists(variants, max_size=1),
    shadow=variants,
)
asynchronous = st.fixed_dictionaries(
    {"kind": st.just("async")},
    optional={
        "instance_type": instance_types,
        "concurrency": mostly([4], [0]),
        "scaling": st.fixed_dictionaries({"maximum": st.integers(1, 2)}),
        "expire_days": mostly([9], [0]),
    },
)
serverless = st.fixed_dictionaries(
    {"kind": st.just("serverless")},
    optional={"memory_mb": mostly([1024, 6144], [3000]), "max_concurrency": mostly([9], [0])},
)
component = st.fixed_dictionaries(
    {"memory_mb": mostly([1024, 4096], [64, 999_999])},
    optional={
        "model": st.sampled_from(MODELS),
        "accelerators": st.integers(1, 2),
        "startup_timeout_seconds": st.just(700),
    },
)
components = st.fixed_dictionaries(
    {
        "kind": st.just("components"),
        "maximum": st.integers(1, 2),
        "components": st.dictionaries(mostly(["a", "b"], ["c_d"]), component, min_size=1, max_size=2),
    },
    optional={"instance_type": st.sampled_from(TYPES), "minimum": st.integers(0, 1)},
)
weights = st.one_of(
    some(kind=st.just("hub"), token_secret=st.just("hub-token"), requirements=st.just(["pydub==0.25.1"])),
    st.just({"kind": "mirrored"}),
    st.fixed_dictionaries(
        {"kind": st.just("s3"), "bucket": st.just("weights"), "key": mostly(["a/", "a.tar.gz"], ["a.zip"])}
    ),
)
rollouts = st.fixed_dictionaries(
    {"kind": st.sampled_from(["all-at-once", "canary", "linear", "rolling"])},
    optional={"bake_seconds": mostly([60], [9999])},
)
endpoint = st.fixed_dictionaries(
    {"model": st.sampled_from(MODELS), "hosting": st.one_of(real_time, asynchronous, serverless, components)},
    optional={
        "weights": weights,
        "revision": mostly(["a" * 40], ["main"]),
        "task": mostly(["text-generation"], ["automatic-speech-recognition", "summarization", "singing"]),
        "parameters": mostly([10**8, 9 * 10**9], [0]),
        "rollout": rollouts,
        "network_isolation": mostly([False], [True]),
        "network": st.just({"vpc": "vpc-1", "subnets": ["subnet-1"]}),
        "verify": mostly([True, False, {}, {"optional": True}], [{"timeout_minutes": 99}]),
        "vllm": mostly([None], [{}, {"tensor_parallel_size": 0}]),
        "environment": mostly(
            [{"EXTENDED_DLC_DTYPE": "bfloat16"}, {"A": "b"}],
            [{"EXTENDED_DLC_BATCHSIZE": "4"}, {"HF_TASK": "x"}, {"MMS_X": "1"}],
        ),
        "monitoring": some(alarms=mostly([{}, {"idle": 9}], [{"idle": 999}, {"idel": 1}])),
        "role": mostly([None], ["arn:aws:iam::111111111111:role/mine", "arn:aws-cn:iam::111111111111:role/mine"]),
        "role_path": st.just("/x/"),
    },
)
images = st.one_of(
    st.fixed_dictionaries(
        {"transformers": mostly(["5.23.0", "4.51.3"], ["9.0", "5.99.0"])},
        optional={
            "family": mostly([None], ["inference", "vllm"]),
            "server": mostly(["native"], ["stock"]),
            "accelerator": mostly([None], ["cpu", "gpu"]),
            "base": mostly(
                [None],
                [
                    "mine:1",
                    "x/huggingface-vllm:0.29.0-gpu-py312-cu130-ubuntu22.04",
                    "x/y:2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04",
                ],
            ),
        },
    ),
    st.fixed_dictionaries({"kind": st.just("stock")}, optional={"transformers": mostly(["4.51.3"], ["4.99.0"])}),
    st.fixed_dictionaries(
        {"kind": st.just("ecr"), "repository": st.just("mine"), "tag": st.just("1")},
        optional={"accelerator": st.sampled_from(["cpu", "gpu"]), "cuda": st.just("cu124")},
    ),
)
documents = st.fixed_dictionaries(
    {
        "region": mostly(["us-east-1", "eu-west-1"], ["cn-north-1"]),
        "image": images,
        "endpoints": st.dictionaries(mostly(["bloom", "whisper"], ["Bloom"]), endpoint, min_size=1, max_size=2),
    },
    optional={"tags": mostly([{"team": "speech"}], [{"aws:x": "y"}])},
)


def build(read: Any, out: Path) -> cdk.cx_api.CloudAssembly:
    app = cdk.App(outdir=str(out), context={**LOOKED_UP, "aws:cdk:disable-stack-trace": True})
    EndpointStack(app, "Stack", read=read, env=cdk.Environment(region=read.region))
    return app.synth()


def shuffled(content: Any) -> Any:
    """The same with every object's keys the other way round."""
    if isinstance(content, dict):
        return {key: shuffled(content[key]) for key in reversed(content)}
    return [shuffled(each) for each in content] if isinstance(content, list) else content


def annotated(assembly: cdk.cx_api.CloudAssembly) -> set[str]:
    """The texts of our annotations."""
    file = Path(assembly.directory) / "Stack.metadata.json"
    content = json.loads(file.read_text() if file.exists() else "{}")
    return {
        each["data"].partition(" [ack: extended-dlc:")[0]
        for entries in content.values()
        for each in entries
        if "[ack: extended-dlc:" in str(each.get("data")) or each["type"] == "aws:cdk:info"
    }


def test_report_plan_and_constructs_agree(tmp_path_factory: Any) -> None:
    seen: dict[str, int] = {"wrong in itself": 0, "refused": 0, "built": 0}

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
    @given(documents)
    def agree(document: Json) -> None:
        read = decided(document, LOOKED_UP)
        assert plan_of(document, LOOKED_UP)["problems"] == list(read.problems)
        other = decided(shuffled(document), LOOKED_UP)
        assert sorted(other.problems) == sorted(read.problems)
        assert other.decision.image.base == read.decision.image.base
        assert other.decision.image.family == read.decision.image.family
        if read.settings is None:
            seen["wrong in itself"] += 1
            return
        out = tmp_path_factory.mktemp("out")
        if read.decision.refusals:
            seen["refused"] += 1
            assert_the_constructs_refuse(read, out)
        elif not read.problems:
            seen["built"] += 1
            assembly = build(read, out)
            assets = json.loads((Path(assembly.directory) / "Stack.assets.json").read_text())
            images = assets.get("dockerImages", {}).values()
            bases = [each["source"]["dockerBuildArgs"]["BASE_IMAGE"] for each in images]
            assert bases in ([], [read.decision.image.base])
            assert annotated(assembly) == {note.text for note in read.decision.notes}

    agree()
    assert min(seen.values()) >= EXAMPLES // 10, seen


def assert_the_constructs_refuse(read: Any, out: Path) -> None:
    """What the report says, one of the constructs says as well."""
    refused = read.decision.refusals
    with pytest.raises((SettingsError, ValueError)) as error:
        build(dataclasses.replace(read, problems=()), out)
    assert any(refusal.rule in str(error.value) for refusal in refused), (str(error.value), refused)


EXAMPLES = 60
SLOW = [*HealthCheck]


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(st.text(max_size=8), inside, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW)
@given(documents, st.randoms(use_true_random=False), anything)
def test_whatever_stands_anywhere_is_a_sentence_with_its_place(document: Json, random: Any, thing: Any) -> None:
    path: list[str] = []
    document = json.loads(json.dumps(document))
    section: Any = document
    while True:
        key = random.choice([*section] or ["x"]) if isinstance(section, dict) else 0
        path.append(str(key))
        inside = section.get(key) if isinstance(section, dict) else section[0]
        if not isinstance(inside, (dict, list)) or not inside or random.random() < 0.3:
            section[key] = thing
            break
        section = inside
    read = decided(document, LOOKED_UP)
    assert read.problems or read.settings is not None, path
    assert all(": " in problem and "Traceback" not in problem for problem in read.problems)
