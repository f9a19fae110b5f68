"""Memory, time and disk: known models by name, both sides of each rule, and the arithmetic in the words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extended_dlc.decisions.sizing import (
    GIB,
    Load,
    check_fit,
    choose_disk,
    choose_timeouts,
    fit,
    smallest_instances,
)
from extended_dlc.facts.instances import find_instance
from extended_dlc.facts.models import ModelFacts, know_model, read_config

BLOOM = {"560m": (24, 1024), "1b1": (24, 1536), "1b7": (24, 2048), "3b": (30, 2560), "7b1": (30, 4096)}


# models by name


@pytest.mark.parametrize(("layers", "width", "name"), [(*shape, f"bloom-{size}") for size, shape in BLOOM.items()])
def test_bloom_has_the_parameters_that_its_shape_gives(layers: int, width: int, name: str) -> None:
    # embeddings of 250,880 tokens, two norms at the ends, and in each layer attention, a four times wider part, norms
    counted = 250_880 * width + 4 * width + layers * (12 * width**2 + 13 * width)
    assert know_model(f"bigscience/{name}").parameters == counted


def test_bloom_and_whisper_are_known_from_the_smallest_to_the_largest() -> None:
    assert know_model("bigscience/bloom").parameters == 176_247_271_424
    assert know_model("openai/whisper-tiny").parameters == 37_760_640
    assert know_model("openai/whisper-large-v3").parameters == 1_543_490_560


def test_a_model_that_nobody_described_is_not_known_and_fits_nothing_and_everything() -> None:
    facts = know_model("someone/something")
    assert (facts.parameters, facts.model_type, facts.task) == (None, None, None)
    assert fit(facts, find_instance("ml.t2.medium")).verdict == "unknown"
    assert check_fit(facts, find_instance("ml.t2.medium")) is None


def test_speech_models_get_their_task_and_the_given_one_goes_before() -> None:
    assert know_model("someone/mine", model_type="whisper").task == "automatic-speech-recognition"
    assert know_model("openai/whisper-tiny", task="audio-classification").task == "audio-classification"
    assert know_model("someone/mine", model_type="bert").task is None


def test_the_hubs_answer_goes_before_the_table_and_the_given_number_before_both() -> None:
    answer = {"parameters": 5, "weight_bytes": 10, "revision": "c0ffee", "asked": "main"}
    name = "bigscience/bloom-560m"
    assert know_model(name, looked_up=answer).parameters == 5
    assert know_model(name, looked_up=answer, revision="c0ffee").parameters == 5
    assert know_model(name, looked_up=answer, revision="main").parameters == 5
    said = know_model(name, looked_up=answer, parameters=7)
    assert (said.parameters, said.weight_bytes) == (7, None)


def test_an_answer_about_another_revision_is_passed_over() -> None:
    answer = {"parameters": 5, "revision": "c0ffee", "asked": "main"}
    assert know_model("bigscience/bloom-560m", looked_up=answer, revision="v2").parameters == 559_214_592


def test_a_config_tells_the_type_and_what_generation_keeps() -> None:
    read = read_config(
        {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "hidden_size": 1024,
            "max_position_embeddings": 40960,
            "torch_dtype": "bfloat16",
        }
    )
    assert (read["model_type"], read["dtype"], read["context"]) == ("qwen3", "bfloat16", 40960)
    assert read["cache_elements_per_token"] == 2 * 28 * 8 * 128


def test_a_config_of_a_model_that_does_not_generate_keeps_nothing() -> None:
    read = read_config(
        {
            "model_type": "bert",
            "architectures": ["BertForSequenceClassification"],
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_size": 768,
        }
    )
    assert (read["model_type"], read["cache_elements_per_token"]) == ("bert", None)


def test_the_table_of_bloom_agrees_with_what_its_config_would_tell() -> None:
    config = {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "n_layer": 24,
        "n_head": 16,
        "hidden_size": 1024,
        "seq_length": 2048,
    }
    facts = know_model("bigscience/bloom-560m")
    read = read_config(config)
    assert (read["cache_elements_per_token"], read["context"]) == (facts.cache_elements_per_token, facts.context)


# memory


def test_bloom_176b_on_one_gpu_is_refused_with_the_arithmetic_and_the_route() -> None:
    with pytest.raises(ValueError, match="cannot hold bigscience/bloom") as refused:
        check_fit(know_model("bigscience/bloom"), find_instance("ml.g5.xlarge"))
    text = str(refused.value)
    assert "176,247,271,424 parameters x 2 bytes (16 bits) are 328.3 GiB of weights" in text
    assert "ml.g5.xlarge has one GPU of 22.4 GiB" in text
    assert "the vLLM family and tensor parallelism over 8 GPUs of 80.0 GiB (ml.p4de.24xlarge or" in text
    assert "parameters=" in text


def test_bloom_176b_fits_eight_gpus_of_80_gib_and_not_one_of_them() -> None:
    bloom, eight = know_model("bigscience/bloom"), find_instance("ml.p4de.24xlarge")
    assert fit(bloom, eight, spread="all").verdict == "fits"
    assert fit(bloom, eight).verdict == "too small"
    assert "80.0 GiB on each of its 8 GPUs, and AWS's server does not split a model" in fit(bloom, eight).why


def test_a_model_that_one_of_several_gpus_holds_is_judged_by_one() -> None:
    bloom, four = know_model("bigscience/bloom-7b1"), find_instance("ml.g5.12xlarge")
    assert fit(bloom, four, spread="all").available == four.gpu_memory_mib * 1024**2
    large = ModelFacts(parameters=30_000_000_000)
    assert fit(large, four, spread="all").verdict == "fits"
    assert fit(large, four).verdict == "too small"


@pytest.mark.parametrize(
    ("model", "instance", "verdict"),
    [
        ("bigscience/bloom-560m", "ml.m5.xlarge", "fits"),
        ("bigscience/bloom-7b1", "ml.g5.xlarge", "fits"),
        ("bigscience/bloom-7b1", "ml.g4dn.xlarge", "tight"),
        ("bigscience/bloom-7b1", "ml.m5.xlarge", "too small"),
        ("openai/whisper-large-v3", "ml.g4dn.xlarge", "fits"),
        ("openai/whisper-large-v3", "ml.t2.medium", "too small"),
    ],
)
def test_the_tutorials_models_on_instances(model: str, instance: str, verdict: str) -> None:
    assert fit(know_model(model), find_instance(instance)).verdict == verdict


def test_a_tight_fit_is_said_and_not_refused() -> None:
    note = check_fit(know_model("bigscience/bloom-7b1"), find_instance("ml.g4dn.xlarge"))
    assert note is not None
    assert "may be too large for ml.g4dn.xlarge: 7,069,016,064 parameters x 2 bytes (16 bits) are 13.2 GiB" in note
    assert "take ml.g5.xlarge or" in note


def test_the_weights_alone_decide_what_is_refused() -> None:
    instance = find_instance("ml.g4dn.xlarge")
    room = instance.gpu_memory_mib * 1024**2
    exact = ModelFacts(parameters=room // 2, dtype="float16")
    assert fit(exact, instance).verdict == "tight"
    assert fit(ModelFacts(parameters=room // 2 + 1, dtype="float16"), instance).verdict == "too small"


def test_longer_and_more_requests_take_more() -> None:
    bloom, instance = know_model("bigscience/bloom-7b1"), find_instance("ml.g5.xlarge")
    short, long = (fit(bloom, instance, load=Load(context=tokens)).cache for tokens in (512, 1024))
    assert long == 2 * short == 2 * 30 * 4096 * 1024 * 2
    assert fit(bloom, instance, load=Load(batch=16)).cache == 16 * fit(bloom, instance).cache
    assert fit(bloom, instance, load=Load(batch=16)).verdict == "tight"


def test_a_request_is_no_longer_than_the_model_takes() -> None:
    bloom, instance = know_model("bigscience/bloom-560m"), find_instance("ml.g5.xlarge")
    assert fit(bloom, instance, load=Load(context=100_000)) == fit(bloom, instance, load=Load(context=2048))


@pytest.mark.parametrize("model", ["openai/whisper-large-v2", "openai/whisper-large-v3"])  # float32 and float16
def test_a_cpu_holds_float32_and_a_gpu_16_bits_unless_it_is_told_otherwise(model: str) -> None:
    whisper = know_model(model)
    parameters = whisper.parameters or 0
    assert fit(whisper, find_instance("ml.m5.xlarge")).weights == 4 * parameters
    assert fit(whisper, find_instance("ml.g5.xlarge")).weights == 2 * parameters
    assert fit(whisper, find_instance("ml.m5.xlarge"), load=Load(dtype="bfloat16")).weights == 2 * parameters
    assert fit(whisper, find_instance("ml.g5.xlarge"), load=Load(dtype="float32")).weights == 4 * parameters


def test_quantised_weights_count_as_they_are_stored() -> None:
    for dtype in ("bfloat16", "uint8", None):
        facts = ModelFacts(parameters=70_000_000_000, dtype=dtype, weight_bytes=39 * GIB)
        assert fit(facts, find_instance("ml.g6e.xlarge")).weights == 39 * GIB


def test_files_alone_tell_the_size_too() -> None:
    facts = ModelFacts(weight_bytes=30 * GIB, dtype="bfloat16")
    assert fit(facts, find_instance("ml.g5.xlarge")).verdict == "too small"
    assert fit(facts, find_instance("ml.m5.4xlarge")).weights == 60 * GIB


def test_an_instance_of_which_no_source_has_the_memory_is_not_judged() -> None:
    unknown = replace(find_instance("ml.m5.xlarge"), memory_mib=None)
    assert check_fit(know_model("bigscience/bloom"), unknown) is None


def test_the_smallest_instances_are_the_smallest_of_their_families_and_hold_the_model() -> None:
    model = know_model("bigscience/bloom-7b1")
    names = smallest_instances(model, "gpu")
    assert names[0] == "ml.g5.xlarge"
    assert len({name.rpartition(".")[0] for name in names}) == len(names) == 3
    assert all(fit(model, find_instance(name)).verdict == "fits" for name in names)
    assert smallest_instances(know_model("bigscience/bloom"), "gpu") == ()


# time


@pytest.mark.parametrize(
    ("gigabytes", "startup"), [(0, 600), (1.1, 660), (14.1, 1080), (61, 2460), (100, 3600), (352.5, 3600)]
)
def test_the_start_up_time_out_grows_with_the_bytes_up_to_the_bound(gigabytes: float, startup: int) -> None:
    found = choose_timeouts(int(gigabytes * 1e9))
    assert found.startup == startup
    assert found.download is None
    assert bool(found.notes) == (gigabytes == 352.5)


def test_the_bound_that_is_too_small_is_said_with_the_way_out() -> None:
    (note,) = choose_timeouts(352_494_542_848).notes
    assert (
        "the start-up may take 11,175 s (600 s, 352 GB read at 100 MB/s and 352 GB from the Hub at 50 MB/s), and"
        in note
    )
    assert "serve it from S3" in note


def test_weights_from_s3_have_a_time_out_of_their_own() -> None:
    small, large = choose_timeouts(14_100_000_000, from_s3=True), choose_timeouts(352_000_000_000, from_s3=True)
    assert (small.startup, small.download, small.notes) == (780, 360, ())
    assert (large.startup, large.download) == (3600, 3600)
    assert len(large.notes) == 2


def test_what_the_weights_lie_on_decides_on_the_notes() -> None:
    """BLOOM's 352 GB: from NVMe storage and an S3 prefix they are there in time."""
    bloom = 352_494_542_848
    assert choose_timeouts(bloom, from_s3=True, as_files=True, own_storage=True).notes == ()
    (note,) = choose_timeouts(bloom, from_s3=True, as_files=True).notes
    assert "4,125 s (600 s, 352 GB read at 100 MB/s)" in note
    assert "NVMe" in note
    (note,) = choose_timeouts(bloom, from_s3=True, own_storage=True).notes
    assert "take an uncompressed S3 prefix" in note


def test_no_cpu_is_proposed_for_what_none_would_serve() -> None:
    assert smallest_instances(know_model("bigscience/bloom"), "cpu") == ()
    assert smallest_instances(know_model("bigscience/bloom-7b1"), "cpu")


def test_nothing_is_computed_for_a_size_that_nobody_knows() -> None:
    assert choose_timeouts(None) == choose_timeouts(None, from_s3=True)
    assert (choose_timeouts(None).startup, choose_timeouts(None).download) == (900, None)


# disk


def test_a_type_without_storage_gets_a_volume_for_the_model() -> None:
    assert choose_disk(1_118_429_184, find_instance("ml.m5.xlarge")).volume_gb == 32
    assert choose_disk(None, find_instance("ml.m5.xlarge")).volume_gb is None


def test_a_type_with_storage_gets_no_volume_and_a_word_where_it_is_too_small() -> None:
    assert choose_disk(14_000_000_000, find_instance("ml.g5.xlarge")) == choose_disk(
        None, find_instance("ml.g5.xlarge")
    )
    tight = choose_disk(352_000_000_000, find_instance("ml.g5.xlarge"))
    assert tight.volume_gb is None
    assert "352 GB leave no room on the 250 GB of ml.g5.xlarge: take a larger type" in tight.notes[0]


def test_a_model_over_the_largest_volume_is_said() -> None:
    assert choose_disk(438_000_000_000, find_instance("ml.m5.xlarge")).notes == ()
    over = choose_disk(500_000_000_000, find_instance("ml.m5.xlarge"))
    assert over.volume_gb == 512
    assert "want a volume of 580 GB, and SageMaker gives 512 GB at most" in over.notes[0]
