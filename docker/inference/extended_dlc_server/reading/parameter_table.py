"""The table of allowed `parameters`: for each task, each name with its type and bounds.

A name that is not in the table is rejected, even if the installed transformers accepts it. `tests/runtime/
test_parameter_table.py` reads the names that the oldest and the newest release know, and fails for one that is neither
here nor in `REFUSED`. Sources, in transformers 4.46.3 and 5.23.0: `pipelines/*.py`,
`generation/configuration_utils.py`, `generation/utils.py`, `models/whisper/generation_whisper.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .parameter_types import AnyOf, Choice, Flag, Group, Json, List, Null, Number, Text, Tuple, Type, Whole
from .tgi import OF_EVERY_TEXT
from .tgi import PARAMETERS as OF_TGI

ROWS = 64
"""Maximum number of beams, and of returned sequences: each is a row of the model's batch."""

LABELS = 500
"""Maximum number of labels of a zero-shot request: each is a text that the model reads."""

_FOR_CODE = "it loads code, models or files, which no request may name"
_OTHERS = "it passes options on to other programs"
_FOR_PYTHON = "it takes Python objects, which JSON cannot hold"
_ASSISTED = "assisted generation is not offered: it changes the model that everybody asks"
_SHAPE = "it changes what the model returns into something that this server does not write"
_OPERATOR = "how the model runs is not the caller's to choose"
_FROM_HUB = "newer transformers releases load its code from the Hub"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("custom_generate", "trust_remote_code", "chat_template"), _FOR_CODE),
    **dict.fromkeys(("tesseract_config", "decoder_kwargs", "processor_kwargs", "parameters"), _OTHERS),
    **dict.fromkeys(
        (
            *("assistant_model", "assistant_tokenizer", "assistant_confidence_threshold", "assistant_early_exit"),
            *("assistant_ensemble_weight", "assistant_lookbehind", "is_assistant", "max_matching_ngram_size"),
            *("num_assistant_tokens", "num_assistant_tokens_schedule", "prompt_lookup_num_tokens", "speculation_type"),
            *("target_lookbehind", "use_mtp"),
        ),
        _ASSISTED,
    ),
    **dict.fromkeys(
        (
            *("attention_mask", "decoder_attention_mask", "decoder_input_ids", "encoder_outputs", "generation_config"),
            *("input_features", "input_ids", "inputs", "inputs_tensor", "logits_processor", "negative_prompt_ids"),
            *("negative_prompt_attention_mask", "past_key_values", "prefix_allowed_tokens_fn", "prompt_ids"),
            *("stopping_criteria", "streamer", "tokenizer", "monitor_progress", "self", "kwargs", "constraints"),
            *("generation_kwargs", "head_mask", "text", "text_pair", "text_target", "text_pair_target", "conversation"),
        ),
        _FOR_PYTHON,
    ),
    **dict.fromkeys(
        (
            *("force_unique_generate_call", "output_attentions", "output_hidden_states", "output_logits"),
            *("output_scores", "return_dict_in_generate", "return_segments", "return_token_timestamps"),
            *("return_legacy_cache", "return_type", "return_dict", "return_offsets_mapping", "return_length"),
            *("return_overflowing_tokens", "return_special_tokens_mask", "return_attention_mask", "tokenize"),
            *("return_token_type_ids", "return_assistant_tokens_mask", "time_precision", "time_precision_features"),
            *(
                "offset_mapping",
                "is_split_into_words",
                "delimiter",
                "return_tensors",
                "data_format",
                "input_data_format",
            ),
        ),
        _SHAPE,
    ),
    **dict.fromkeys(
        (
            *(
                "cache_config",
                "cache_implementation",
                "compile_config",
                "continuous_batching_config",
                "disable_compile",
            ),
            *(
                "low_memory",
                "max_cache_len",
                "prefill_chunk_size",
                "synced_gpus",
                "timeout",
                "num_workers",
                "batch_size",
            ),
            *("verbose", "ignore_warning", "token_healing", "transformers_version", "num_segment_frames", "framework"),
            *("sanitize_control_tokens", "image_seq_length", "default_to_square", "device", "disable_grouping"),
        ),
        _OPERATOR,
    ),
    **dict.fromkeys(
        ("penalty_alpha", "num_beam_groups", "diversity_penalty", "dola_layers", "force_words_ids"), _FROM_HUB
    ),
    "forced_decoder_ids": "transformers removed it: for Whisper send 'language' and 'task'",
    "watermarking_config": "this server marks no texts",
    # names in AWS's images and Hugging Face's APIs, with what to send instead
    "return_all_scores": "send 'top_k': null for all scores",
    "grouped_entities": "send 'aggregation_strategy': \"simple\"",
    "ignore_subwords": "send 'aggregation_strategy': \"first\"",
    "topk": "send 'top_k'",
    "stop": "this task stops at no text",
    "stop_sequences": "this task stops at no text",
    "max_tokens": "send 'max_new_tokens'",
    "max_completion_tokens": "send 'max_new_tokens'",
    "n": "send 'num_return_sequences'",
    "best_of": "send 'num_return_sequences' for several answers",
    "truncate": "send 'truncation': true",
    "handle_long_generation": "send 'truncation': true",
    "seed": "answers that can be repeated come with 'do_sample': false",
    "frequency_penalty": "send 'repetition_penalty'",
    "presence_penalty": "send 'repetition_penalty'",
    "generate_parameters": "send 'generate_kwargs', or its names beside the others",
    "generation_parameters": "send 'generate_kwargs', or its names beside the others",
    "decoder_input_details": _SHAPE,
    "details": _SHAPE,
    "top_n_tokens": _SHAPE,
    "watermark": "this server marks no texts",
    "prompt": "this model takes no prompt beside its input",
    "tokenizer_kwargs": "this task takes no options of the tokenizer",
    "add_generation_prompt": "send 'continue_final_message'",
    "text_inputs": "send the text as 'inputs'",
}
"""Name -> why it is rejected, or what to send instead. The table of a task takes precedence."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits that the bounds of the table depend on."""

    input_tokens: int

    new_tokens: int
    """Maximum number of generated tokens."""

    all_tokens: int = 0
    """Maximum of `max_length`. Default: `input_tokens` + `new_tokens`."""

    vocabulary: int
    """Number of token ids, which begin at 0."""

    template_variables: frozenset[str] = frozenset()
    """Variables of the model's chat template, beside the messages."""


OF_THE_HUB = ("generation_parameters", "generate_parameters")
"""The names of `generate_kwargs` in the Hub's clients, for speech and for texts."""

CLIENTS_OWN = frozenset({"sagemaker_base_url"})
"""Options for a client that it sends to the model too; they are ignored. This one is litellm's, for another AWS
endpoint URL than the public one."""


def parameters_of(task: str, limits: Limits) -> dict[str, Type]:
    """Return the table of a task: name -> type."""
    table = _table_of(task, limits)
    group = table.get("generate_kwargs")
    return {**table, **dict.fromkeys(OF_THE_HUB, group)} if group else table


def _table_of(task: str, limits: Limits) -> dict[str, Type]:
    if task.startswith("translation"):
        task = "translation"
    for table_of in (_of_writing, _of_sound, _of_reading, _of_images):
        table = table_of(task, limits)
        if table is not None:
            return table
    return {}  # decision, depth-estimation, image-to-image


def _of_writing(task: str, limits: Limits) -> dict[str, Type] | None:
    """Return the table of a task that writes text; None for another."""
    generation = _generation(limits)
    tokenizer = _tokenizer(limits)
    match task:
        case "text-generation":
            return {
                **generation,
                **_OF_TEXT,
                **OF_TGI,
                "truncate": Whole(1, max(1, limits.input_tokens)),
                "generate_kwargs": Group(generation, REFUSED),
                "return_full_text": Flag(),
                "return_text": Flag(),
                "return_tensors": Flag(),
                "prefix": Text(10_000),
                "truncation": TRUNCATION,
                "padding": Flag(),
                "add_special_tokens": Flag(),
                "continue_final_message": Flag(),
                "skip_special_tokens": Flag(),
                "tokenizer_encode_kwargs": Group({**tokenizer, **_variables(limits)}, REFUSED),
                "chat_template_kwargs": Group(_variables(limits), REFUSED),
                "tools": List(Json(), 128),
                "documents": List(Json(), 1000),
            }
        case "summarization" | "text2text-generation" | "translation":
            languages = {"src_lang": _LANGUAGE, "tgt_lang": _LANGUAGE} if task == "translation" else {}
            return {
                **generation,
                **_OF_TEXT,
                **languages,
                "generate_kwargs": Group(generation, REFUSED),
                "return_text": Flag(),
                "truncation": TRUNCATION,
            }
        case "image-text-to-text" | "any-to-any":
            return {
                **generation,
                **_OF_TEXT,
                "generate_kwargs": Group(generation, REFUSED),
                "return_full_text": Flag(),
                "continue_final_message": Flag(),
                "skip_special_tokens": Flag(),
                "generation_mode": Choice(("text", "image", "audio")),
            }
        case "image-to-text":
            return {**generation, "generate_kwargs": Group(generation, REFUSED), "prompt": Text(10_000)}
    return None


def _of_sound(task: str, limits: Limits) -> dict[str, Type] | None:
    """Return the table of a task with sound; None for another."""
    generation = _generation(limits)
    tokenizer = _tokenizer(limits)
    match task:
        case "text-to-audio":
            forward = {name: rule for name, rule in generation.items() if name not in NOT_OF_SOUND} | _VOICE
            refused = {**REFUSED, **NOT_OF_SOUND}
            return {
                **forward,
                "generate_kwargs": Group(forward, refused),
                "forward_params": Group(forward, refused),
                "preprocess_params": Group({**tokenizer, **_OF_SPEECH_TEXT}, REFUSED),
            }
        case "automatic-speech-recognition":
            speech = {**generation, **_speech(limits)}
            return {
                **speech,
                "generate_kwargs": Group(speech, REFUSED),
                "chunk_length_s": AnyOf((Number(1, 600), Choice((0,)))),
                "stride_length_s": AnyOf((Number(0, 300), Tuple((Number(0, 300), Number(0, 300))))),
                "return_language": Flag(),
            }
        case "audio-classification":
            return {"top_k": _SEVERAL, "function_to_apply": _FUNCTION}
    return None


def _of_reading(task: str, limits: Limits) -> dict[str, Type] | None:
    """Return the table of a task that tells something of texts; None for another."""
    tokenizer = _tokenizer(limits)
    match task:
        case "text-classification":
            return {**tokenizer, "top_k": _SEVERAL, "function_to_apply": _FUNCTION}
        case "token-classification":
            return {
                "aggregation_strategy": Choice(("none", "simple", "first", "average", "max")),
                "ignore_labels": List(Text(200), 1000, 0),
                "stride": Whole(0, max(0, limits.input_tokens - 1)),
                "truncation": TRUNCATION,
            }
        case "fill-mask":
            targets = AnyOf((Text(200, 1), List(Text(200, 1), 1000)))
            return {
                "top_k": Whole(1, max(1, limits.vocabulary)),
                "targets": targets,
                "tokenizer_kwargs": Group(tokenizer, REFUSED),
                "truncation": TRUNCATION,
            }
        case "feature-extraction":
            return {**_VECTORS, "truncation": TRUNCATION, "tokenize_kwargs": Group(tokenizer, REFUSED)}
        case "sentence-embeddings":
            return {**VECTORS, "truncation": TRUNCATION}
        case "question-answering" | "document-question-answering":
            return {
                **_windows(limits),
                "top_k": Whole(1, 1000),
                "max_answer_len": Whole(1, 1000),
                "handle_impossible_answer": Flag(),
                "padding": PADDING,
                **({"align_to_words": Flag()} if task == "question-answering" else {"lang": _TESSERACT_LANGUAGE}),
            }
        case "table-question-answering":
            return {"sequential": Flag(), "padding": PADDING, "truncation": AnyOf((Flag(), _TABLE_TRUNCATION))}
        case "zero-shot-classification":
            return {**_TEMPLATE, "multi_label": Flag(), "truncation": TRUNCATION}
        case "zero-shot-audio-classification" | "zero-shot-image-classification":
            return dict(_TEMPLATE)
    return None


def _of_images(task: str, limits: Limits) -> dict[str, Type] | None:
    """Return the table of a task that tells something of images; None for another."""
    score = Number(0, 1)
    match task:
        case "visual-question-answering":
            return {"top_k": Whole(1, 10_000), "padding": PADDING, "truncation": TRUNCATION}
        case "zero-shot-object-detection":
            return {"candidate_labels": _TEMPLATE["candidate_labels"], "threshold": score, "top_k": _SEVERAL}
        case "image-classification":
            return {"top_k": Whole(1, 10_000), "function_to_apply": _FUNCTION}
        case "image-segmentation":
            names = ("threshold", "mask_threshold", "overlap_mask_area_threshold")
            return {"subtask": Choice(("semantic", "instance", "panoptic")), **dict.fromkeys(names, score)}
        case "object-detection" | "keypoint-matching":
            return {"threshold": score}
        case "image-feature-extraction":
            return {"pool": Flag(), "image_processor_kwargs": Group(_IMAGE_PROCESSOR, REFUSED)}
        case "mask-generation":
            return dict(_MASKS)
    return None


TRUNCATION = AnyOf((Flag(), Choice(("longest_first", "only_first", "only_second", "do_not_truncate"))))
PADDING = AnyOf((Flag(), Choice(("longest", "max_length", "do_not_pad"))))

_LANGUAGE = Text(40, 1)
_SEVERAL = AnyOf((Whole(1, 10_000), Null()))
_FUNCTION = Choice(("sigmoid", "softmax", "none", "default"))
_TESSERACT_LANGUAGE = Text(60, 1, r"[A-Za-z_]+(\+[A-Za-z_]+)*", "names of tesseract's languages such as 'eng+deu'")
_TABLE_TRUNCATION = Choice(("drop_rows_to_fit", "only_first", "longest_first", "do_not_truncate"))
_TEXT_TO_STOP_AT = AnyOf((Text(200, 1), List(Text(200, 1), 16)))
_SIDE = Whole(1, 2048)
DIRECTIONS = Choice(("left", "right", "Left", "Right"))
"""The end at which a text is cut, as this server and Text Embeddings Inference name it."""

_VECTORS: dict[str, Type] = {
    "pooling": Choice(("model", "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")),
    "normalize": Flag(),
    "dimensions": Whole(1, 100_000),
    "truncate": Flag(),
    "truncation_direction": DIRECTIONS,
    "encoding_format": Choice(("float",)),
}
VECTORS: dict[str, Type] = {**_VECTORS, "prompt": Text(10_000), "prompt_name": Text(200, 1)}
"""The parameters of one vector for each text. The Hub's clients send them beside `inputs`."""

_OF_TEXT: dict[str, Type] = {
    "clean_up_tokenization_spaces": Flag(),
    "stop_sequence": _TEXT_TO_STOP_AT,
    **{name: OF_TGI[name] for name in OF_EVERY_TEXT},
}

_TEMPLATE: dict[str, Type] = {
    "candidate_labels": AnyOf((List(Text(1000, 1), LABELS), Text(20_000, 1))),
    # a format string with anything but one plain {} could ask for gigabytes of spaces
    "hypothesis_template": Text(1000, 2, r"[^{}]*\{\}[^{}]*", "a text with exactly one {} and no other braces"),
}

VOICE_OF_BARK = Text(40, 1, r"(v2/)?([a-z]{2}_speaker_\d|announcer)", "one of Bark's voices, such as 'v2/en_speaker_1'")
"""A name of another form would be opened as a file."""

_VOICE: dict[str, Type] = {"speaker_id": Whole(0, 100_000), "output_audio": Flag(), "tgt_lang": _LANGUAGE}
_OF_SPEECH_TEXT: dict[str, Type] = {
    "src_lang": _LANGUAGE,
    "tgt_lang": _LANGUAGE,
    "voice_preset": VOICE_OF_BARK,
}

_IMAGE_PROCESSOR: dict[str, Type] = {
    **dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad"), Flag()),
    **dict.fromkeys(
        ("size", "crop_size", "pad_size"),
        Group(dict.fromkeys(("height", "width", "shortest_edge", "longest_edge"), _SIDE)),
    ),
    "size_divisor": _SIDE,
    "rescale_factor": Number(0, 255),
    "resample": Whole(0, 5),
    **dict.fromkeys(("image_mean", "image_std"), List(Number(-1000, 1000), 4)),
}

_MASKS: dict[str, Type] = {
    "points_per_batch": Whole(1, 256),
    "points_per_crop": Whole(1, 64),
    "crops_n_layers": Whole(0, 2),
    "crop_overlap_ratio": Number(0, 1, below=True),
    "crops_nms_thresh": Number(0, 1),
    "crop_n_points_downscale_factor": Whole(1, 64),
    "max_hole_area": Number(0, 1e6),
    "max_sprinkle_area": Number(0, 1e6),
    "output_bboxes_mask": Flag(),
    "output_rle_mask": Flag(),
    **dict.fromkeys(
        ("mask_threshold", "pred_iou_thresh", "stability_score_offset", "stability_score_thresh"), Number(-1000, 1000)
    ),
}


NOT_OF_SOUND = {
    **dict.fromkeys(
        ("encoder_no_repeat_ngram_size", "encoder_repetition_penalty"),
        "it compares tokens of the text with those that are generated, which are of sound",
    ),
    **dict.fromkeys(
        (
            *("bad_words_ids", "begin_suppress_tokens", "sequence_bias", "suppress_tokens"),
            *("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id"),
            *("forced_bos_token_id", "forced_eos_token_id", "no_repeat_ngram_size", "repetition_penalty"),
        ),
        "it is about the tokens of one sequence, and those of sound come in several",
    ),
    "num_return_sequences": "a text gets one sound: send the text again for another",
    "stop_strings": "sound stops at no text",
}
"""Parameters without a meaning for generated tokens of sound; on a GPU, the indexes of some would end the process."""


def _generation(limits: Limits) -> dict[str, Type]:
    """Return the arguments of `generate`, except those that load code, change the model or choose how it runs."""
    token = Whole(0, max(0, limits.vocabulary - 1))
    tokens = List(token, 10_000)
    total = limits.all_tokens or limits.input_tokens + limits.new_tokens
    return {
        "max_new_tokens": Whole(1, limits.new_tokens),
        "min_new_tokens": Whole(0, limits.new_tokens),
        "max_length": Whole(1, total),
        "min_length": Whole(0, total),
        "max_time": Number(0, 86_400, above=True),
        "do_sample": Flag(),
        "num_beams": Whole(1, ROWS),
        "num_return_sequences": Whole(1, ROWS),
        "early_stopping": AnyOf((Flag(), Choice(("never",)))),
        "temperature": Number(0, 100),  # 0 means greedy decoding
        "top_k": Whole(0, max(1, limits.vocabulary)),
        "top_p": Number(0, 1),
        "top_h": Number(0, 1),
        "min_p": Number(0, 1),
        "typical_p": Number(0, 1, above=True),
        "epsilon_cutoff": Number(0, 1, below=True),
        "eta_cutoff": Number(0, 1, below=True),
        "repetition_penalty": Number(0, 100, above=True),
        "encoder_repetition_penalty": Number(0, 100, above=True),
        "length_penalty": Number(-100, 100),
        "no_repeat_ngram_size": Whole(0, 1000),
        "encoder_no_repeat_ngram_size": Whole(0, 1000),
        "exponential_decay_length_penalty": Tuple((Whole(0, total), Number(0, 100))),
        "guidance_scale": Number(0, 100),
        "bad_words_ids": List(List(token, 64), 1000),
        "sequence_bias": List(Tuple((List(token, 64), Number(-1000, 1000))), 1000),
        "suppress_tokens": tokens,
        "begin_suppress_tokens": tokens,
        "forced_bos_token_id": token,
        "forced_eos_token_id": AnyOf((token, List(token, 64))),
        "eos_token_id": AnyOf((token, List(token, 64))),
        "pad_token_id": token,
        "bos_token_id": token,
        "decoder_start_token_id": token,
        "renormalize_logits": Flag(),
        "remove_invalid_values": Flag(),
        "use_cache": Flag(),
        "stop_strings": _TEXT_TO_STOP_AT,
    }


def _speech(limits: Limits) -> dict[str, Type]:
    """Return the additional arguments of Whisper's `generate`."""
    temperature = Number(0, 2)
    return {
        "temperature": AnyOf((temperature, List(temperature, 8))),
        "return_timestamps": AnyOf((Flag(), Choice(("word", "char")))),
        "language": AnyOf((_LANGUAGE, List(_LANGUAGE, 1))),
        "task": Choice(("transcribe", "translate")),
        "is_multilingual": Flag(),
        "prompt_condition_type": Choice(("first-segment", "all-segments")),
        "condition_on_prev_tokens": Flag(),
        "compression_ratio_threshold": Number(0, 1000),
        "logprob_threshold": Number(-1000, 0),
        "no_speech_threshold": Number(0, 1),
    }


def _tokenizer(limits: Limits) -> dict[str, Type]:
    """Return the options of a tokenizer."""
    return {
        "truncation": TRUNCATION,
        "padding": PADDING,
        "padding_side": Choice(("left", "right")),
        "max_length": Whole(1, limits.input_tokens),
        "pad_to_multiple_of": Whole(1, min(1024, limits.input_tokens)),
        "stride": Whole(0, max(0, limits.input_tokens - 1)),
        "add_special_tokens": Flag(),
        "split_special_tokens": Flag(),
    }


def _windows(limits: Limits) -> dict[str, Type]:
    """Return the options for overlapping windows of a long text."""
    return {
        "doc_stride": Whole(1, limits.input_tokens),
        "max_seq_len": Whole(1, limits.input_tokens),
        "max_question_len": Whole(1, limits.input_tokens),
    }


def _variables(limits: Limits) -> dict[str, Type]:
    """Return the chat template's variables, such as `enable_thinking`: booleans, numbers, texts or other JSON."""
    return dict.fromkeys(limits.template_variables, Json(depth=8, most=1000))
