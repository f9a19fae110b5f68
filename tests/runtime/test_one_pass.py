"""Several texts in one forward pass have the pipeline's answers, for each kind of model and parameter."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from extended_dlc_server.model.one_pass import one_pass

# prints the answers of the pipeline, text by text, and those of one pass, for each kind of model and each parameters
PROGRAM = """
import json, sys
from extended_dlc_server.json_text import encode_json
from extended_dlc_server.model.one_pass import one_pass
from transformers import pipeline

model, task, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
pipe = pipeline(task, model=model)
if task == "text-classification":
    kinds = ("regression", "multi_label_classification", "single_label_classification", None)
    asked = ({}, {"top_k": 2}, {"top_k": None}, {"top_k": 99}, {"function_to_apply": "Sigmoid"},
             {"function_to_apply": "none", "top_k": 1})
else:
    kinds, asked = (None,), ({},)
for kind in kinds:
    pipe.model.config.problem_type = kind
    for arguments in asked:
        together = one_pass(pipe, task)(texts, arguments)
        alone = [pipe(text, **arguments) for text in texts]
        print(json.dumps([alone, json.loads(encode_json(together))]))
"""


def flat(value):
    """The names and numbers of an answer in order, with brackets for its lists."""
    if isinstance(value, list):
        return ["[", *(part for each in value for part in flat(each)), "]"]
    return [part for each in value.values() for part in flat(each)] if isinstance(value, dict) else [value]


@pytest.mark.parametrize(("task", "cases"), [("text-classification", 24), ("feature-extraction", 1)])
def test_one_pass_answers_as_the_pipeline_does(models, server_path, task, cases):
    texts = ["short", "a text that is longer than the others, and by many tokens", "in between", "short"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, models / "bert-classifier", task, json.dumps(texts)],
        env={**os.environ, "PYTHONPATH": server_path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    assert len(answers) == cases
    for alone, together in answers:
        assert [value for value in flat(together) if isinstance(value, str)] == [
            value for value in flat(alone) if isinstance(value, str)
        ]
        numbers = [[value for value in flat(answer) if isinstance(value, float)] for answer in (together, alone)]
        assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)


# prints how many threads the model sees, and whether the tokenizer has several, during a pass and after it
THREADS = """
import json, os, sys
import torch
from extended_dlc_server.model.one_pass import one_pass
from transformers import pipeline

pipe = pipeline("text-classification", model=sys.argv[1])
ask, seen = one_pass(pipe, "text-classification"), []

def look(*_):
    seen.append([torch.get_num_threads(), os.environ["TOKENIZERS_PARALLELISM"]])

pipe.model.register_forward_pre_hook(look)
torch.set_num_threads(3)
for texts in (["short"] * 4, ["a few words"] * 400, ["a " * 500]):
    try:
        ask(texts, {})
    except Exception as error:
        seen.append("failed")
    look()
print(json.dumps(seen))
"""


def test_what_is_done_before_threads_meet_is_not_shared_between_them(models, server_path):
    done = subprocess.run(
        [sys.executable, "-c", THREADS, models / "bert-classifier"],
        env={**os.environ, "PYTHONPATH": server_path, "TOKENIZERS_PARALLELISM": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone, all_of_them = [1, "false"], [3, "true"]
    # for a short batch, a long one, and one that fails
    assert json.loads(done.stdout.splitlines()[-1]) == [
        *(alone, all_of_them),
        *(all_of_them, all_of_them),
        *(alone, "failed", all_of_them),
    ]


def test_a_models_own_pipeline_answers_for_itself():
    class Own:
        """A class outside transformers' modules."""

    assert one_pass(Own(), "text-classification") is None
    assert one_pass(Own(), "text-generation") is None


def test_features_have_the_digits_of_32_bits_whichever_way_they_are_asked_for(start_server):
    server = start_server("bert-classifier", HF_TASK="feature-extraction").wait_until_ready()
    text = "a few words"
    alone = server.ask({"inputs": text})
    (listed,) = server.ask({"inputs": [text]}).json
    pipelines = server.ask({"inputs": text, "parameters": {"truncation": True}})
    assert alone.json == listed == pipelines.json
    assert alone.body == pipelines.body
    numbers = [number.strip("[]") for number in alone.body.decode().split(",")]
    assert max(len(number.lstrip("-")) for number in numbers) <= len("0.012345678e-05")
    assert server.stop() == 0
