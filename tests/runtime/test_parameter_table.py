"""The table of parameters: each release's parameters are taken or refused, and each value has bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from extended_dlc_server.errors import RequestError
from extended_dlc_server.reading import parameters
from extended_dlc_server.reading.parameter_table import REFUSED, Limits, parameters_of
from extended_dlc_server.reading.parameter_types import Group, check_all
from extended_dlc_server.reading.tasks import KINDS

LIMITS = Limits(input_tokens=512, new_tokens=100, vocabulary=1000, template_variables=frozenset({"enable_thinking"}))


@pytest.fixture(scope="module")
def known(release, server_path):
    """The release's parameters, by task and by group."""
    pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")
    program = Path(__file__).parent / "walk_parameters.py"
    environment = {**os.environ, "PYTHONPATH": server_path}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, check=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["release"] == release
    return found


def decided(table):
    return {*table, *REFUSED}


def test_every_parameter_of_a_pipeline_is_taken_or_refused(known):
    undecided = {
        task: sorted(set(names) - decided(parameters_of(task, LIMITS)) - {"self"})
        for task, names in known["tasks"].items()
    }
    assert len(undecided) > 20
    assert {task: names for task, names in undecided.items() if names} == {}


@pytest.mark.parametrize(
    ("group", "task", "name"),
    [
        ("generate", "automatic-speech-recognition", "generate_kwargs"),
        ("tokenizer", "fill-mask", "tokenizer_kwargs"),
        ("template", "text-generation", "tokenizer_encode_kwargs"),
        ("image", "image-feature-extraction", "image_processor_kwargs"),
    ],
)
def test_every_name_of_a_group_is_taken_or_refused(known, group, task, name):
    table = parameters_of(task, LIMITS)
    assert set(known["groups"][group]) - decided(table[name].table) - decided(table) == set()


def test_what_loads_code_or_changes_the_model_is_taken_nowhere():
    dangerous = {"custom_generate", "trust_remote_code", "assistant_early_exit", "assistant_model", "chat_template"}
    dangerous |= {"tesseract_config", "prompt_lookup_num_tokens", "penalty_alpha", "cache_implementation"}
    assert dangerous <= REFUSED.keys()
    for task in KINDS:
        for table in every_table(parameters_of(task, LIMITS)):
            assert not dangerous & table.keys(), task


def every_table(table):
    yield table
    for rule in table.values():
        if isinstance(rule, Group):
            yield from every_table(rule.table)


@pytest.mark.parametrize(
    ("task", "parameters", "words"),
    [
        ("text-classification", {"return_all_scores": True}, "'top_k': null"),
        ("token-classification", {"grouped_entities": True}, "aggregation_strategy"),
        ("text-generation", {"stop": [5]}, "1 to 200 characters"),
        ("text-generation", {"best_of": 2}, "one of: 1"),
        ("text-generation", {"seed": -1}, "from 0 to"),
        ("text-generation", {"grammar": {"type": "xml"}}, "one of: 'json', 'regex'"),
        ("text-classification", {"stop": ["#"]}, "stops at no text"),
        ("text-generation", {"max_new_toks": 3}, "did you mean 'max_new_tokens'"),
        ("text-generation", {"generate_kwargs": {"custom_generate": "a/b"}}, "loads code"),
        ("text-to-audio", {"forward_params": {"trust_remote_code": True}}, "loads code"),
        ("text-to-audio", {"generate_kwargs": {"encoder_no_repeat_ngram_size": 1}}, "which are of sound"),
        ("text-to-audio", {"forward_params": {"encoder_repetition_penalty": 1.5}}, "which are of sound"),
        ("text-to-audio", {"generation_parameters": {"bad_words_ids": [[1]]}}, "those of sound come in several"),
        ("text-to-audio", {"generate_kwargs": {"num_return_sequences": 2}}, "a text gets one sound"),
        ("text-to-audio", {"guidance_scale": 101}, "from 0 to 100"),
        ("text-to-audio", {"preprocess_params": {"voice_preset": "/etc/passwd"}}, "Bark"),
        ("image-feature-extraction", {"image_processor_kwargs": {"size": {"height": 10**8}}}, "1 to 2048"),
        ("fill-mask", {"tokenizer_kwargs": {"pad_to_multiple_of": 10**8}}, "from 1 to 512"),
        ("text-classification", {"padding": "max_length", "max_length": 10**8}, "from 1 to 512"),
        ("zero-shot-classification", {"hypothesis_template": "{:300000000}"}, "exactly one {}"),
        ("zero-shot-classification", {"hypothesis_template": "{} {}"}, "exactly one {}"),
        ("zero-shot-classification", {"hypothesis_template": "none"}, "exactly one {}"),
        ("text-generation", {"max_new_tokens": 10**7}, "from 1 to 100"),
        ("text-generation", {"max_new_tokens": True}, "whole number"),
        ("text-generation", {"max_new_tokens": float("inf")}, "whole number"),
        ("text-generation", {"temperature": float("nan")}, "number from 0"),
        ("text-generation", {"eos_token_id": 2**70}, "from 0 to 999"),
        ("text-generation", {"bad_words_ids": [[1, 1000]]}, "from 0 to 999"),
        ("text-generation", {"encoder_no_repeat_ngram_size": 2**63}, "from 0 to 1000"),
        ("text-generation", {"assistant_early_exit": 1}, "assisted generation"),
        ("automatic-speech-recognition", {"chunk_length_s": 0.0001}, "from 1 to 600"),
        ("document-question-answering", {"tesseract_config": "-c debug_file=x"}, "other programs"),
        ("document-question-answering", {"lang": "eng --user-words /etc/passwd"}, "tesseract's languages"),
        ("text-generation", {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "loads code"),
        ("text-generation", {"x" * 10_000: 1}, "is not known"),
    ],
)
def test_a_value_out_of_bounds_is_400_with_its_rule(task, parameters, words):
    with pytest.raises(RequestError) as raised:
        check_all(parameters, parameters_of(task, LIMITS), REFUSED)
    assert raised.value.status == 400
    assert words in raised.value.message
    assert len(raised.value.message) < 3000


@pytest.mark.parametrize(
    ("task", "parameters", "checked"),
    [
        ("text-generation", {"temperature": 1, "top_k": 3.0}, {"temperature": 1.0, "top_k": 3}),
        ("text-generation", {"max_new_tokens": None}, {}),
        ("text-classification", {"top_k": None}, {"top_k": None}),
        ("text-generation", {"chat_template_kwargs": {"enable_thinking": False}}, None),
        ("automatic-speech-recognition", {"temperature": [0, 0.2], "chunk_length_s": 0}, None),
        ("zero-shot-classification", {"candidate_labels": "a, b", "hypothesis_template": "It is {}."}, None),
        ("text-generation", {"stop_strings": ["a", "b"], "sequence_bias": [[[1, 2], -1]]}, None),
        ("translation_en_to_de", {"src_lang": "en", "max_new_tokens": 3}, None),
        ("text-to-audio", {"do_sample": True, "guidance_scale": 3, "max_new_tokens": 50, "top_k": 250}, None),
    ],
)
def test_a_value_within_bounds_is_taken(task, parameters, checked):
    found = check_all(parameters, parameters_of(task, LIMITS), REFUSED)
    assert found == (parameters if checked is None else checked)


class Writes:
    def _sanitize_parameters(self, truncation=None, clean_up_tokenization_spaces=None, **generate_kwargs):
        """The signature of the text2text pipelines."""


class Translates(Writes):
    def _sanitize_parameters(self, src_lang=None, tgt_lang=None, **kwargs):
        """The signature of translation, which passes further parameters on."""


class Reads(Writes):
    def _sanitize_parameters(self, top_k=None):
        """A signature that passes nothing on."""


def test_a_pipeline_takes_what_the_one_takes_that_it_passes_the_rest_on_to():
    both = {"src_lang", "tgt_lang", "truncation", "clean_up_tokenization_spaces"}
    assert parameters._named_by(Translates) == (both, True)
    assert parameters._named_by(Reads) == ({"top_k"}, False)
