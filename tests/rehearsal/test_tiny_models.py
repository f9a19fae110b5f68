"""The tiny models: made by one transformers release, loaded by another, always the same."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.rehearsal import tiny_models
from extended_dlc.rehearsal.base_image import stand_in as standin
from extended_dlc.rehearsal.engine import Engine, EngineError, find_engine

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
transformers = pytest.importorskip("transformers", reason="pip install -r tests/runtime/requirements.txt")
numpy = pytest.importorskip("numpy", reason="pip install numpy")

torch.set_num_threads(1)  # more threads slow down such small models, above all on a busy machine
STATE = Path(__file__).parents[2] / ".rehearsal"
PROMPT = "Hello, my name is"


def silent(_: str) -> None:
    pass


def run_here(folder: Path) -> Path:
    orders = [f"{recipe}={name}" for name, recipe in tiny_models.RECIPES.items()]
    subprocess.run([sys.executable, tiny_models.PROGRAM, str(folder), *orders], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def made_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def image() -> tuple[Engine, str]:
    if not (shutil.which("docker") or shutil.which("podman")):
        pytest.skip("needs a container engine: install Docker Engine or podman, or run 'extended-dlc rehearse' once")
    try:
        engine = find_engine(STATE, registry="127.0.0.1:5000", say=silent)
        return engine, standin.make_standin(engine, STATE, say=silent)
    except EngineError as error:
        pytest.skip(f"needs a container engine and the stand-in: {error}")


@pytest.fixture(scope="module")
def made_in_the_standin(image: tuple[Engine, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("standin")
    assert tiny_models.make_models(*image, folder) == tuple(tiny_models.RECIPES)
    return folder


@pytest.fixture(scope="module", params=["made_here", "made_in_the_standin"])
def models(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    }


def bloom(folder: Path, name: str = tiny_models.BLOOM) -> Callable[[str], str]:
    pipeline: Any = transformers.pipeline("text-generation", str(folder / name))

    def answer(prompt: str) -> str:
        text: str = pipeline(prompt, max_new_tokens=20, do_sample=False, return_full_text=False)[0]["generated_text"]
        return text

    return answer


def tone(seconds: float) -> Any:
    times = numpy.arange(int(16000 * seconds)) / 16000
    return (0.25 * numpy.sin(2 * math.pi * 440 * times)).astype(numpy.float32)


@pytest.fixture(scope="module")
def whisper(models: Path) -> Any:
    return transformers.pipeline("automatic-speech-recognition", str(models / tiny_models.WHISPER))


def test_they_lie_where_the_hub_would_have_them(models: Path) -> None:
    for name in ("bigscience/bloom-560m", "bigscience/bloom-1b1", "openai/whisper-base"):
        assert name in tiny_models.RECIPES
        assert (models / name / "config.json").is_file()
        assert (models / name / "model.safetensors").stat().st_size < 1_000_000


def test_two_makings_are_equal_to_the_byte(made_here: Path, tmp_path: Path) -> None:
    assert contents(run_here(tmp_path)) == contents(made_here)


def test_both_releases_make_the_same_weights_and_tokenizers(made_here: Path, made_in_the_standin: Path) -> None:
    of_host, of_standin = contents(made_here), contents(made_in_the_standin)
    same = [name for name in of_host if name.endswith(("safetensors", "tokenizer.json", "vocab.json", "merges.txt"))]
    assert len(same) == 14
    for name in same:
        if name.endswith("safetensors"):
            from safetensors.torch import load

            one, other = load(of_host[name]), load(of_standin[name])
            assert set(one) == set(other)
            assert all(torch.equal(one[key], other[key]) for key in one), name
        else:
            assert of_host[name] == of_standin[name], name


def test_a_second_call_makes_nothing(image: tuple[Engine, str], made_in_the_standin: Path) -> None:
    def times() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in made_in_the_standin.rglob("*")}

    before = times()
    tiny_models.make_models(*image, made_in_the_standin)
    assert times() == before


@pytest.mark.parametrize("prompt", [PROMPT, "Grüße 你好 🙂", "x"])
def test_bloom_answers_in_words_and_always_the_same(models: Path, prompt: str) -> None:
    answer = bloom(models)
    first = answer(prompt)
    assert len(first.split()) == 20
    assert all(word.isalpha() for word in first.split())
    assert answer(prompt) == first


def test_the_other_bloom_answers_otherwise(models: Path) -> None:
    assert bloom(models)(PROMPT) != bloom(models, tiny_models.OTHER_BLOOM)(PROMPT)


def test_a_copy_under_another_name_answers_alike(models: Path) -> None:
    assert bloom(models)(PROMPT) == bloom(models, tiny_models.BLOOM_COPY)(PROMPT)


def test_smollm3_made_without_its_code_is_read_by_the_release_that_has_it(models: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(models / tiny_models.SMOLLM3)
    assert type(config).__name__ == "SmolLM3Config"
    first = bloom(models, tiny_models.SMOLLM3)(PROMPT)
    assert len(first.split()) == 20
    assert all(word.isalpha() for word in first.split())


@pytest.mark.parametrize("name", tiny_models.RECIPES)
def test_releases_from_before_safetensors_can_read_them_too(models: Path, name: str) -> None:
    weights = torch.load(models / name / "pytorch_model.bin", weights_only=True)
    assert weights
    merges = json.loads((models / name / "tokenizer.json").read_text())["model"].get("merges", [])
    assert all(isinstance(pair, str) for pair in merges)


def test_bloom_answers_a_batch_as_it_answers_each(models: Path) -> None:
    pipeline = transformers.pipeline("text-generation", str(models / tiny_models.BLOOM))
    options = {"max_new_tokens": 5, "do_sample": False, "return_full_text": False}
    together = pipeline([PROMPT, "hello world"], batch_size=2, **options)
    alone = [pipeline(prompt, **options) for prompt in (PROMPT, "hello world")]
    assert together == alone


def test_whisper_transcribes_a_short_tone(whisper: Any) -> None:
    text = whisper(tone(1.5))["text"]
    assert len(text.split()) > 5
    assert whisper(tone(1.5))["text"] == text


def test_whisper_takes_language_and_task_as_the_multilingual_one_does(whisper: Any) -> None:
    for language in ("german", "fr"):
        assert whisper(tone(1), generate_kwargs={"language": language, "task": "translate"})["text"].strip()
    with pytest.raises(ValueError, match="klingon"):
        whisper(tone(1), generate_kwargs={"language": "klingon"})


@pytest.mark.parametrize("options", [{"return_timestamps": True}, {"chunk_length_s": 30}], ids=["times", "chunks"])
def test_whisper_takes_audio_longer_than_its_window(whisper: Any, options: dict[str, Any]) -> None:
    answer = whisper(tone(40), **options)
    assert answer["text"].strip()
    for chunk in answer.get("chunks", []):
        start, end = chunk["timestamp"]
        assert 0 <= start <= 40
        assert end is None or 0 <= end <= 40


def test_bert_tells_positive_from_negative(models: Path) -> None:
    classify = transformers.pipeline("text-classification", str(models / tiny_models.BERT))
    answers = classify(["I love it", "I hate this", "hello world"])
    assert {answer["label"] for answer in answers} == {"POSITIVE", "NEGATIVE"}


def test_the_program_wants_one_folder() -> None:
    done = subprocess.run([sys.executable, tiny_models.PROGRAM], capture_output=True, text=True)
    assert done.returncode != 0
    assert "usage: python tiny_models.py FOLDER" in done.stderr
