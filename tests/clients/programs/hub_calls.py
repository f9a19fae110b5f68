"""Hugging Face's own client: each method whose task the release serves, with each documented argument."""

from __future__ import annotations

import dataclasses
import inspect
import io
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx2
import huggingface_hub
import pydantic
from calls import INVOKE, OPENAI, ORDER, PORT, ROUTE, SAID, TOOL, Asked, Calls, check, check_order, main, tone
from huggingface_hub import InferenceClient
from PIL import Image
from through_sagemaker import ThroughSageMaker

CALLS = Calls("huggingface_hub")
HUB = {"Accept": "application/json;profile=hub"}


def picture() -> bytes:
    """A small image."""
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((32, 32)).save(file, "PNG")
    return file.getvalue()


PICTURE, SOUND = picture(), tone()
USER: list[Any] = [{"role": "user", "content": "hi"}]


@dataclasses.dataclass(frozen=True)
class Method:
    """A method, its required arguments, and values for each further argument."""

    name: str
    needed: dict[str, Any]
    each: dict[str, list[Any]]
    right: Callable[[Any], bool] = bool
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    refused: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Argument to the error's text, and the table's reason."""

    left_out: frozenset[str] = frozenset()


def _vector(found: Any) -> bool:
    return found.shape == (1, 32)


TEXT_REFUSED = {
    "adapter_id": ("adapter_id", "the model is served without adapters"),
    "best_of": ("best_of", "1 is all there is: `num_return_sequences` gives several"),
    "decoder_input_details": ("decoder_input_details", "the prompt's tokens are not scored"),
    "watermark": ("watermark", "no watermark is made"),
}
TEXT = Method(
    "text_generation",
    {"prompt": "hello world", "max_new_tokens": 8},
    {
        **{
            "details": [True],
            "stream": [True],
            "adapter_id": ["mine"],
            "best_of": [2],
            "decoder_input_details": [True],
        },
        **{"do_sample": [True, False], "frequency_penalty": [0.5], "max_new_tokens": [3], "repetition_penalty": [1.2]},
        **{"grammar": [{"type": "regex", "value": "(yes|no)"}], "return_full_text": [True, False], "seed": [7]},
        **{"stop": [["dog"]], "temperature": [0.7], "top_k": [5], "top_n_tokens": [2], "top_p": [0.9], "truncate": [2]},
        **{"typical_p": [0.9], "watermark": [True]},
    },
    refused=TEXT_REFUSED,
)
CHAT = Method(
    "chat_completion",
    {"messages": USER, "max_tokens": 20},
    {
        **{
            "stream": [True],
            "frequency_penalty": [0.5],
            "logit_bias": [{"5": 1}],
            "logprobs": [True],
            "max_tokens": [2],
        },
        **{"n": [2], "presence_penalty": [0.5], "seed": [7], "stop": [["good"]], "temperature": [0, 0.7]},
        **{"response_format": [{"type": "json_schema", "json_schema": {"name": "order", "schema": ORDER}}]},
        **{
            "stream_options": [{"include_usage": True}],
            "tool_choice": ["none", "auto"],
            "tool_prompt": ["Use these: "],
        },
        **{"tools": [[TOOL]], "top_logprobs": [2], "top_p": [0.9]},
        **{"extra_body": [{"chat_template_kwargs": {"enable_thinking": False}}]},
    },
    refused={"tool_prompt": ("tool_prompt", "the template says it")},
)
# arguments that an argument needs beside it
WITH: dict[str, dict[str, Any]] = {
    "chat_completion.top_logprobs": {"logprobs": True},
    "chat_completion.stream_options": {"stream": True},
    "chat_completion.tool_choice": {"tools": [TOOL]},
    "chat_completion.tool_prompt": {"tools": [TOOL]},
    "chat_completion.response_format": {"max_tokens": 200},
    "text_generation.best_of": {"details": True},
    "translation.src_lang": {"tgt_lang": "de"},
    "translation.tgt_lang": {"src_lang": "en"},
    "text_generation.decoder_input_details": {"details": True},
    "text_generation.top_n_tokens": {"details": True},
    "text_generation.grammar": {"max_new_tokens": 20},
}
SPEECH_PARAMETERS: dict[str, list[Any]] = {
    **{"do_sample": [True], "early_stopping": [True], "epsilon_cutoff": [0.0], "eta_cutoff": [0.0], "max_length": [20]},
    **{"max_new_tokens": [20], "min_length": [1], "min_new_tokens": [1], "num_beam_groups": [1], "num_beams": [2]},
    **{"penalty_alpha": [0.0], "temperature": [0.7], "top_k": [5], "top_p": [0.9], "typical_p": [0.9]},
    **{"use_cache": [True], "extra_body": [{"use_cache": True}]},
}
NO_GENERATION = ("generat|not known|unknown", "the model served (VITS) does not generate")
WHERE: dict[str, list[Method]] = {
    "chat": [CHAT],
    "text": [TEXT],
    "embed": [
        Method(
            "feature_extraction",
            {"text": "hello"},
            {
                **{"normalize": [True, False], "prompt_name": ["query"], "truncate": [True, False], "dimensions": [32]},
                **{"truncation_direction": ["left", "right"], "encoding_format": ["float"]},
            },
            _vector,
        ),
        Method(
            "sentence_similarity",
            {"sentence": "hello", "other_sentences": ["hello", "a fox"]},
            {},
            lambda found: len(found) == 2 and abs(found[0] - 1) < 1e-4,
        ),
    ],
    "whisper": [
        Method("automatic_speech_recognition", {"audio": SOUND}, {"extra_body": [{"return_timestamps": True}]})
    ],
    "text-to-audio": [
        Method(
            "text_to_speech",
            {"text": "hello world"},
            SPEECH_PARAMETERS,
            refused=dict.fromkeys(SPEECH_PARAMETERS, NO_GENERATION),
        )
    ],
    "audio-classification": [
        Method("audio_classification", {"audio": SOUND}, {"top_k": [1], "function_to_apply": ["softmax", "none"]})
    ],
    "document-question-answering": [
        Method(
            "document_question_answering",
            {
                "image": PICTURE,
                "question": "what?",
                "word_boxes": [["hello", [0, 0, 10, 10]], ["fox", [10, 0, 20, 10]]],
            },
            {
                **{"doc_stride": [16], "handle_impossible_answer": [True], "lang": ["eng"], "max_answer_len": [3]},
                **{"max_question_len": [8], "max_seq_len": [64], "top_k": [2]},
                "word_boxes": [[["hello", [0, 0, 10, 10]]]],
            },
            refused={"max_question_len": ("max_question_len", "transformers' pipeline takes the name and fails at it")},
        )
    ],
    "feature-extraction": [
        Method("feature_extraction", {"text": "hello"}, {"truncate": [True]}, lambda found: found.shape[-1] == 32)
    ],
    "fill-mask": [Method("fill_mask", {"text": "hello [MASK]"}, {"targets": [["fox"]], "top_k": [2]})],
    "image-classification": [
        Method("image_classification", {"image": PICTURE}, {"function_to_apply": ["softmax"], "top_k": [1]})
    ],
    "image-segmentation": [
        Method(
            "image_segmentation",
            {"image": PICTURE},
            {
                **{"mask_threshold": [0.5], "overlap_mask_area_threshold": [0.5], "subtask": ["semantic"]},
                "threshold": [0.5],
            },
        )
    ],
    "image-to-image": [
        Method(
            "image_to_image",
            {"image": PICTURE},
            {
                **{"prompt": ["a fox"], "negative_prompt": ["a dog"], "num_inference_steps": [2]},
                **{"guidance_scale": [1.0], "target_size": [{"width": 8, "height": 8}]},
            },
            refused=dict.fromkeys(
                ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "target_size"),
                ("not known|unknown", "of diffusion models: `pipeline()` has none of it"),
            ),
            left_out=frozenset({"kwargs"}),
        )
    ],
    "image-to-text": [Method("image_to_text", {"image": PICTURE}, {})],
    "object-detection": [
        Method("object_detection", {"image": PICTURE}, {"threshold": [0.0, 0.5]}, lambda found: isinstance(found, list))
    ],
    "question-answering": [
        Method(
            "question_answering",
            {"question": "who?", "context": "the quick fox"},
            {
                **{"align_to_words": [True], "doc_stride": [16], "handle_impossible_answer": [True], "top_k": [2]},
                **{"max_answer_len": [3], "max_question_len": [8], "max_seq_len": [48]},
            },
        )
    ],
    "summarization": [
        Method(
            "summarization",
            {"text": "hello world", "generate_parameters": {"max_new_tokens": 8}},
            {
                **{"clean_up_tokenization_spaces": [True], "truncation": ["longest_first"]},
                "generate_parameters": [{"max_new_tokens": 5, "num_beams": 2}],
            },
        )
    ],
    "table-question-answering": [
        Method(
            "table_question_answering",
            {"table": {"name": ["fox", "dog"], "legs": ["4", "4"]}, "query": "how many legs?"},
            {"padding": ["longest"], "sequential": [True, False], "truncation": [True]},
        )
    ],
    "text-classification": [
        Method("text_classification", {"text": "hello"}, {"top_k": [1], "function_to_apply": ["softmax", "none"]})
    ],
    "token-classification": [
        Method(
            "token_classification",
            {"text": "hello world"},
            {"aggregation_strategy": ["simple", "none"], "ignore_labels": [["O"]], "stride": [4]},
            lambda found: isinstance(found, list),
        )
    ],
    "translation": [
        Method(
            "translation",
            {"text": "hello world", "generate_parameters": {"max_new_tokens": 8}},
            {
                **{"clean_up_tokenization_spaces": [True], "truncation": ["longest_first"]},
                **{
                    "generate_parameters": [{"max_new_tokens": 5, "num_beams": 2}],
                    "src_lang": ["en"],
                    "tgt_lang": ["de"],
                },
            },
        )
    ],
    "visual-question-answering": [
        Method("visual_question_answering", {"image": PICTURE, "question": "what?"}, {"top_k": [1]})
    ],
    "zero-shot-classification": [
        Method(
            "zero_shot_classification",
            {"text": "hello", "candidate_labels": ["fox", "dog"]},
            {"multi_label": [True, False], "hypothesis_template": ["About {}."]},
            headers=HUB,
        )
    ],
    "zero-shot-image-classification": [
        Method(
            "zero_shot_image_classification",
            {"image": PICTURE, "candidate_labels": ["fox", "dog"]},
            {"hypothesis_template": ["About {}."]},
        )
    ],
}
NO_TASK = {
    "audio_to_audio": "no task of `pipeline()`",
    "image_to_video": "no task of `pipeline()`",
    "tabular_classification": "no task of `pipeline()`",
    "tabular_regression": "no task of `pipeline()`",
    "text_to_image": "no task of `pipeline()`",
    "text_to_video": "no task of `pipeline()`",
}
NO_TASK_EITHER = {"close", "get_endpoint_info", "health_check", "image_text_to_image", "image_text_to_video"}


def all_asked() -> Iterable[str]:
    """Methods and arguments of the installed client that no call covers."""
    methods = [method for methods in WHERE.values() for method in methods]
    for name, function in inspect.getmembers(InferenceClient, inspect.isfunction):
        if name.startswith("_") or name in NO_TASK or name in NO_TASK_EITHER:
            continue
        known = {"self", "model"}
        for method in methods:
            if method.name == name:
                known |= {"", *method.needed, *method.each, *method.left_out}
        yield from (
            f"{name}({argument})" for argument in ("", *inspect.signature(function).parameters) if argument not in known
        )


def valid(made: Any) -> Any:
    """Validate the client's dataclasses by their annotations, because the client does not."""
    for one in made if isinstance(made, list) else [made]:
        if dataclasses.is_dataclass(one) and not isinstance(one, type):
            for name, kind in typing.get_type_hints(type(one)).items():
                if not isinstance(getattr(one, name), Image.Image):  # the client itself makes it from a string
                    pydantic.TypeAdapter(kind).validate_python(getattr(one, name))
    return made


def call(client: InferenceClient, method: Method, argument: str, value: Any) -> None:
    """One call, with one further argument."""
    given = {**method.needed, **WITH.get(f"{method.name}.{argument}", {})}
    if argument:
        given[argument] = value
    made = getattr(client, method.name)(**given)
    if inspect.isgenerator(made) or isinstance(made, Iterator):
        made = list(made)
    check(method.right(made), made)
    valid(made)
    if method is CHAT:
        _check_chat(given, made)
    elif method is TEXT and argument == "stream":
        check(len(made) > 1 and all(isinstance(part, str) for part in made), made)


def _check_chat(given: dict[str, Any], made: Any) -> None:
    if given.get("stream"):
        said = "".join(chunk.choices[0].delta.content or "" for chunk in made if chunk.choices)
        check(said == SAID, [said, *[chunk.choices[0].finish_reason for chunk in made if chunk.choices]])
    elif "response_format" in given:
        check_order(made.choices[0].message.content)
    elif "tools" in given and given.get("tool_choice") != "none":
        check(made.choices[0].message.tool_calls[0].function.name == "get_weather", made)
    elif "tools" not in given:
        check(SAID.startswith(made.choices[0].message.content), made)


def program(asked: Asked) -> None:
    """Call the endpoints that exist."""
    for endpoint in asked.ports:
        if endpoint.startswith("absent "):
            _refused_at_the_start(endpoint.removeprefix("absent "), asked.reason)
        for method in WHERE.get(endpoint, ()):
            _each_argument(asked, endpoint, method)
    if "chat" in asked.ports:
        missing = list(all_asked())
        if missing:
            CALLS.try_it("methods and arguments that are not asked", PORT, check, False, missing)
        for name, why in NO_TASK.items():
            CALLS.not_so(f"`{name}`", PORT, why)


def _each_argument(asked: Asked, endpoint: str, method: Method) -> None:
    where = f" of {endpoint}" if endpoint == "feature-extraction" else ""
    cases = [("", None), *((argument, value) for argument, values in method.each.items() for value in values)]
    by_route = ThroughSageMaker(asked.aws, asked.region, by_route=True)
    by_shape = ThroughSageMaker(asked.aws, asked.region, by_route=False)
    for way, transport in ((PORT, None), (INVOKE, by_shape), (ROUTE, by_route)):
        if way == ROUTE and method is not CHAT:
            continue
        # the client's own way to another transport
        huggingface_hub.set_client_factory(lambda transport=transport: httpx2.Client(transport=transport))
        url = asked.container_url(endpoint) if way == PORT else f"http://sagemaker/{endpoint}"
        client = InferenceClient(model=f"{url}/invocations", headers=method.headers, timeout=120)
        if method is CHAT and way != PORT:
            client = InferenceClient(model=url, headers=method.headers, timeout=120)
        _ask(way, client, method, cases, where)
    if method is CHAT:
        huggingface_hub.set_client_factory(httpx2.Client)
        client = InferenceClient(base_url=asked.openai(endpoint), api_key=asked.token, timeout=120)
        _ask(OPENAI, client, method, cases, where)


def _ask(way: str, client: InferenceClient, method: Method, cases: list[tuple[str, Any]], where: str) -> None:
    for argument, value in cases:
        shown = "…" if isinstance(value, (list, dict, bytes)) else repr(value)
        name = f"`{method.name}({f'{argument}={shown}' if argument else ''})`{where}"
        refused, why = method.refused.get(argument, ("", ""))
        CALLS.try_it(
            name,
            way,
            lambda argument=argument, value=value: call(client, method, argument, value),
            refused=refused,
            why=why,
        )


def _refused_at_the_start(task: str, reason: str) -> None:
    for method in WHERE[task]:
        words = next((line for line in reason.splitlines() if task in line and "removed" in line), "")
        CALLS.try_it(
            f"`{method.name}`",
            PORT,
            lambda words=words: (_ for _ in ()).throw(ValueError(words)),
            refused="removed",
            why=f"the task `{task}` is refused at the start with the release that removed it",
        )


if __name__ == "__main__":
    main(program)
