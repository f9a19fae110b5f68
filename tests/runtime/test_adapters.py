"""LoRA adapters beside their base: each request chooses one, and gets the answer of the merged model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import IMAGE, NEWEST

torch = pytest.importorskip("torch", reason="pip install -r tests/runtime/requirements.txt")

TINY_TYPES = IMAGE.parents[1] / "extended_dlc" / "rehearsal" / "base_image" / "context" / "tiny_types.py"
PROMPT = "hello world , my name is"


def write_lora(folder, module, sizes, seed, task):
    """Write an adapter as peft does; return the change that it makes to the module's weights."""
    from safetensors.torch import save_file

    outputs, inputs = sizes
    generator = torch.Generator().manual_seed(seed)
    down, up = (torch.randn(size, generator=generator) for size in ((4, inputs), (outputs, 4)))
    folder.mkdir(parents=True)
    name = f"base_model.model.{module}"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": [module], "bias": "none"}
    about |= {"base_model_name_or_path": "tiny/base", "task_type": task}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return 2 * up @ down


def merged(base, folder, module, change):
    """Write the base model with the change merged into its weights."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("adapters"))
    weights = load_file(folder / "model.safetensors")
    (name,) = [name for name in weights if f"transformer.{name}".endswith(f"{module}.weight")]
    save_file({**weights, name: weights[name] + change}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def peft_for(release, kept_packages):
    wanted = ("peft==0.21.2", "accelerate==1.15.0") if release == NEWEST else ("peft==0.13.2", "accelerate==1.1.1")
    return kept_packages(f"peft-{release}", *wanted, "psutil", dependencies=False)


@pytest.fixture(scope="module")
def packages(release, kept_packages):
    """A folder with peft and what it needs, as the image has them."""
    return peft_for(release, kept_packages)


@pytest.fixture(scope="module")
def bases(models, tmp_path_factory):
    """A text generator with two adapters, a classifier with one, and the three merged models."""
    root = tmp_path_factory.mktemp("adapters")
    fused, query = "transformer.h.1.self_attention.query_key_value", "encoder.layer.0.attention.self.query"
    for kind, module, sizes, seeds, task in (
        ("bloom", fused, (192, 64), {"sql": 1, "poems": 2}, "CAUSAL_LM"),
        ("bert-classifier", query, (32, 32), {"polite": 3}, "FEATURE_EXTRACTION"),
    ):
        shutil.copytree(models / kind, root / kind)
        for name, seed in seeds.items():
            change = write_lora(root / kind / "adapters" / name, module, sizes, seed, task)
            merged(root / kind, root / name, module, change)
    return root


@pytest.fixture(scope="module")
def served(start_server, bases, release, server_path, packages):
    path = f"{packages}:{server_path}"
    return start_server(bases / "bloom", release, PYTHONPATH=path).wait_until_ready()


@pytest.fixture(scope="module")
def expected(bases):
    """Name -> the likeliest text of the base and of the merged models, by transformers itself."""
    import transformers

    found = {}
    for name in ("bloom", "sql", "poems"):
        write = transformers.pipeline("text-generation", model=str(bases / name))
        found[name] = write(PROMPT, max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
    assert len(set(found.values())) == 3
    return found


def completion(served, model, **more):
    body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "model": model, **more}
    answer = served.ask(body)  # a body of this shape goes to /v1/completions
    if not more.get("stream"):
        return answer.json["model"], answer.json["choices"][0]["text"]
    chunks = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
    return chunks[0]["model"], "".join(chunk["choices"][0]["text"] for chunk in chunks)


def by_parameter(served, model, **_):
    parameters = {"max_new_tokens": 12, "do_sample": False, "return_full_text": False, "adapter_id": model}
    (answer,) = served.ask({"inputs": PROMPT, "parameters": parameters}).json
    return model, answer["generated_text"]


def test_requests_of_several_adapters_at_once_get_what_each_merged_model_says(served, expected):
    assert served.tells("texts share the steps of the model")
    asked = [
        (ask, name, more)
        for _ in range(3)
        for name in ("sql", None, "poems", "any-other")
        for ask, more in ((completion, {}), (completion, {"stream": True}), (by_parameter, {}))
        if (ask, name) not in ((completion, None), (by_parameter, "any-other"))
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda one: one[0](served, one[1], **one[2]), asked))
    for (_, name, _), (named, text) in zip(asked, answers, strict=True):
        assert named == name
        assert text.strip() == expected[name if name in expected else "bloom"].strip(), name


def test_models_lists_the_adapters_and_an_unknown_one_is_refused_by_name(served):
    listed = served.request("GET", "/v1/models").json["data"]
    assert [(one["id"], one.get("parent")) for one in listed] == [("model", None), ("poems", "model"), ("sql", "model")]
    assert served.request("GET", "/v1/models/sql").json["parent"] == "model"
    status, code, message = served.ask({"inputs": "a", "parameters": {"adapter_id": "spl"}}).error
    assert (status, code) == (400, "bad-parameters")
    assert "'adapter_id' ('spl')" in message
    assert "'poems', 'sql'" in message


def test_vectors_are_those_of_the_adapter_that_the_request_names(start_server, bases, release, server_path, packages):
    import transformers

    path = f"{packages}:{server_path}"
    server = start_server(bases / "bert-classifier", release, PYTHONPATH=path, HF_TASK="feature-extraction")
    server.wait_until_ready()
    texts = ["hello world", "the quick brown fox"]
    wanted = {}
    for name in ("bert-classifier", "polite"):
        encode = transformers.pipeline("feature-extraction", model=str(bases / name))
        wanted[name] = [torch.tensor(encode(text)[0]).mean(0) for text in texts]

    def vector(name, text):
        (row,) = server.ask({"input": text, "model": name, "pooling": "mean"}).json["data"]
        return torch.tensor(row["embedding"])

    asked = [(name, number) for _ in range(4) for name in wanted for number in (0, 1)]
    with ThreadPoolExecutor(len(asked)) as pool:
        vectors = list(pool.map(lambda one: vector(one[0], texts[one[1]]), asked))
    for (name, number), row in zip(asked, vectors, strict=True):
        torch.testing.assert_close(row, wanted[name][number], atol=1e-4, rtol=1e-3)
    assert (wanted["polite"][0] - wanted["bert-classifier"][0]).abs().max() > 0.05


REFUSED = {
    "name": ({"my adapter": {}}, {}, "is named by no name of an adapter"),
    "of the model": ({"base": {}}, {"HF_MODEL_ID": "base"}, "'base' would be the name of two models or adapters"),
    "twice": ({"a": {}}, {"EXTENDED_DLC_ADAPTERS": "a=b/c"}, "'a' would be the name of two models or adapters"),
    "too many": ({f"a{number}": {} for number in range(33)}, {}, "33 adapters are more than the 32"),
    "half": ({"a": None}, {}, "has an adapter's weights and no adapter_config.json"),
    "kind": ({"a": {"peft_type": "IA3"}}, {}, "the adapter a is of the kind IA3, which cannot be switched on and off"),
    "bias": ({"a": {"bias": "all"}}, {}, "the adapter a is trained with the bias 'all'"),
}


@pytest.mark.parametrize(("folders", "environment", "says"), REFUSED.values(), ids=REFUSED)
def test_adapters_that_cannot_be_served_stop_the_start(tmp_path, monkeypatch, folders, environment, says):
    from extended_dlc_server.errors import StartError
    from extended_dlc_server.files import weights
    from extended_dlc_server.files.adapters import attach
    from extended_dlc_server.files.complete import Incomplete
    from extended_dlc_server.settings import read_settings

    monkeypatch.setattr(weights, "require_peft", lambda adapter, incomplete: True)  # refused adapters need no peft
    for name, more in folders.items():
        folder = tmp_path / "model" / "adapters" / name
        write_lora(folder, "query", (4, 4), 1, "CAUSAL_LM")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, **(more or {})}))
        if more is None:
            (folder / "adapter_config.json").unlink()
    settings = read_settings({"SAGEMAKER_BASE_DIR": str(tmp_path), **environment})
    with pytest.raises(StartError) as refused:
        attach(None, {adapter.name: adapter for adapter in weights.find_adapters(settings, Incomplete(allowed=False))})
    assert says in str(refused.value)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_tiny_adapters_of_the_rehearsal_are_served_and_felt(start_server, kept_packages, tmp_path, kind):
    orders = (f"{kind}:text-generation:1=some/base", "adapter:some/base:2=some/adapter")
    environment = {**os.environ, "PYTHONPATH": str(IMAGE)}
    subprocess.run([sys.executable, TINY_TYPES, tmp_path, *orders], env=environment, check=True, capture_output=True)
    base = tmp_path / "some" / "base"
    shutil.copytree(tmp_path / "some" / "adapter", base / "adapters" / "mine")
    served = start_server(base, PYTHONPATH=f"{peft_for(NEWEST, kept_packages)}:{IMAGE}").wait_until_ready()
    assert completion(served, "mine")[1] != completion(served, "other")[1]
    assert served.stop() == 0
