"""For each task of `pipeline()`, a tiny random model: its architecture in the smallest sizes, and its processors."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "docker" / "inference"))

import tiny_models

LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VISION = {**LAYERS, "image_size": 32, "patch_size": 8}
SQUARE = {"size": {"height": 32, "width": 32}}
EDGE = {"size": {"shortest_edge": 32}}
ROLES = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
BART = {
    **{"d_model": 32, "max_position_embeddings": 64, "decoder_start_token_id": 1, "forced_eos_token_id": None},
    **{f"{half}_{name}": 2 for half in ("encoder", "decoder") for name in ("layers", "attention_heads")},
    **{f"{half}_ffn_dim": 64 for half in ("encoder", "decoder")},
}
CLAP_AUDIO = {
    **{"hidden_size": 32, "patch_embeds_hidden_size": 16, "num_mel_bins": 16, "spec_size": 64, "window_size": 4},
    **{"patch_size": 2, "patch_stride": 2, "depths": [1, 1], "num_attention_heads": [2, 2], "num_hidden_layers": 2},
    **{"projection_dim": 16},
}
CLAP_FEATURES = {"feature_size": 16, "hop_length": 4800, "truncation": "rand_trunc"}
SAM = {
    "vision_config": {
        **{"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64},
        **{"image_size": 32, "patch_size": 8, "num_pos_feats": 8, "window_size": 2, "global_attn_indexes": [1]},
    },
    "prompt_encoder_config": {
        **{"hidden_size": 16, "image_size": 32, "patch_size": 8, "image_embedding_size": 4, "mask_input_channels": 8},
    },
    "mask_decoder_config": {
        **{"hidden_size": 16, "num_hidden_layers": 2, "mlp_dim": 32, "num_attention_heads": 2},
        **{"iou_head_hidden_dim": 16},
    },
}
SUPERPOINT = {
    **{"model_type": "superpoint", "encoder_hidden_sizes": [32, 32, 64], "decoder_hidden_size": 64},
    **{"keypoint_decoder_dim": 65, "descriptor_decoder_dim": 64, "keypoint_threshold": 0.0, "max_keypoints": 8},
}
SUPERGLUE = {
    **{"keypoint_detector_config": SUPERPOINT, "hidden_size": 64, "keypoint_encoder_sizes": [32, 64]},
    **{"gnn_layers_types": ["self", "cross"], "num_attention_heads": 4, "sinkhorn_iterations": 5},
    **{"matching_threshold": 0.0},
}
VITS = {
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16, "flow_size": 16},
    **{"spectrogram_bins": 8, "duration_predictor_num_flows": 2, "duration_predictor_filter_channels": 16},
    **{"prior_encoder_num_flows": 2, "upsample_initial_channel": 16, "upsample_rates": [8, 2]},
    **{"upsample_kernel_sizes": [16, 4], "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]]},
}
DPT = {
    **{**VISION, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 8, 8, 8]},
    **{"fusion_hidden_size": 8, "num_channels": 3},
}
SEGFORMER = {
    **{"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1]},
    **{"decoder_hidden_size": 16},
}
WAV2VEC = {
    **{**LAYERS, "conv_dim": (32, 32), "conv_kernel": (10, 8), "conv_stride": (8, 8), "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "vocab_size": 32},
}
SWIN2SR = {
    **{"image_size": 32, "patch_size": 1, "embed_dim": 16, "depths": [1], "num_heads": [2], "window_size": 4},
    **{"upscale": 2},
}


@dataclass(frozen=True)
class Recipe:
    """The parts of a task's model."""

    model: str
    config: str = ""
    sizes: dict[str, Any] = field(default_factory=dict)
    processor: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = ""
    """`bytes`, or the class of one like BERT's."""


def _bert(head: str, **more: Any) -> Recipe:
    return Recipe(head, "BertConfig", {**LAYERS, "max_position_embeddings": 64, **more}, tokenizer="BertTokenizer")


PLAIN = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "attention_mask"],
    "model_max_length": 64,
}
ENTAILMENT = {"id2label": {0: "contradiction", 1: "entailment"}, "label2id": {"contradiction": 0, "entailment": 1}}
SEQ2SEQ = Recipe("BartForConditionalGeneration", "BartConfig", BART, tokenizer="bytes")
RECIPES = {
    "audio-classification": Recipe(
        "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", WAV2VEC, "Wav2Vec2FeatureExtractor"
    ),
    "depth-estimation": Recipe("DPTForDepthEstimation", "DPTConfig", DPT, "DPTImageProcessor", SQUARE),
    "document-question-answering": Recipe(
        "LayoutLMForQuestionAnswering", "LayoutLMConfig", LAYERS, tokenizer="LayoutLMTokenizer"
    ),
    "feature-extraction": _bert("BertModel"),
    "fill-mask": _bert("BertForMaskedLM"),
    "image-classification": Recipe("ViTForImageClassification", "ViTConfig", VISION, "ViTImageProcessor", SQUARE),
    "image-feature-extraction": Recipe("ViTModel", "ViTConfig", VISION, "ViTImageProcessor", SQUARE),
    "image-segmentation": Recipe(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        SEGFORMER,
        "SegformerImageProcessor",
        {"size": {"height": 64, "width": 64}},
    ),
    "image-to-image": Recipe(
        "Swin2SRForImageSuperResolution", "Swin2SRConfig", SWIN2SR, "Swin2SRImageProcessor", {"pad_size": 4}
    ),
    "image-to-text": Recipe(
        "BlipForConditionalGeneration",
        "BlipConfig",
        {
            "text_config": {
                **{**LAYERS, "encoder_hidden_size": 32, "max_position_embeddings": 64},
                **{"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0},
            },
            "vision_config": VISION,
            "projection_dim": 16,
        },
        "BlipImageProcessor",
        SQUARE,
        "BertTokenizer",
    ),
    "keypoint-matching": Recipe(
        "SuperGlueForKeypointMatching", "SuperGlueConfig", SUPERGLUE, "SuperGlueImageProcessor", SQUARE
    ),
    "mask-generation": Recipe(
        "SamModel",
        "SamConfig",
        SAM,
        "SamImageProcessor",
        {"size": {"longest_edge": 32}, "pad_size": {"height": 32, "width": 32}},
    ),
    "object-detection": Recipe(
        "YolosForObjectDetection",
        "YolosConfig",
        {**VISION, "image_size": [32, 32], "num_detection_tokens": 4},
        "YolosImageProcessor",
        {"size": {"shortest_edge": 32, "longest_edge": 32}},
    ),
    "question-answering": _bert("BertForQuestionAnswering"),
    "summarization": SEQ2SEQ,
    "table-question-answering": Recipe("TapasForQuestionAnswering", "TapasConfig", LAYERS, tokenizer="TapasTokenizer"),
    "text-classification": _bert("BertForSequenceClassification"),
    "text-to-audio": Recipe("VitsModel", "VitsConfig", VITS, tokenizer="bytes"),
    "text2text-generation": SEQ2SEQ,
    "token-classification": _bert("BertForTokenClassification"),
    "translation": SEQ2SEQ,
    "visual-question-answering": Recipe(
        "ViltForQuestionAnswering", "ViltConfig", VISION, "ViltImageProcessor", EDGE, "BertTokenizer"
    ),
    "zero-shot-audio-classification": Recipe(
        "ClapModel",
        "ClapConfig",
        {"text_config": {**LAYERS, **ROLES}, "audio_config": CLAP_AUDIO, "projection_dim": 16},
        "ClapFeatureExtractor",
        CLAP_FEATURES,
        "bytes",
    ),
    "zero-shot-classification": _bert("BertForSequenceClassification", **ENTAILMENT),
    "zero-shot-image-classification": Recipe(
        "CLIPModel",
        "CLIPConfig",
        {"text_config": LAYERS, "vision_config": VISION, "projection_dim": 16},
        "CLIPImageProcessor",
        {**EDGE, "crop_size": {"height": 32, "width": 32}},
        "bytes",
    ),
    "zero-shot-object-detection": Recipe(
        "OwlViTForObjectDetection",
        "OwlViTConfig",
        {"text_config": {**LAYERS, "max_position_embeddings": 64}, "vision_config": VISION, "projection_dim": 32},
        "OwlViTImageProcessor",
        {**SQUARE, "crop_size": {"height": 32, "width": 32}},
        "bytes",
    ),
}


def make_decider(folder: Path) -> None:
    """A chat model that has a token for each answer."""
    import torch
    import transformers

    tokenizer = tiny_models._text_tokenizer()
    tokenizer.add_tokens(["Yes", "No"])
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tiny_models._save_tokenizer(tokenizer, folder, {**PLAIN, "model_max_length": 2048, "chat_template": template})
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**LAYERS, **ROLES, vocab_size=tokenizer.get_vocab_size())
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def make_llava(folder: Path) -> None:
    """A LLaVA whose image takes 17 tokens."""
    import torch
    import transformers

    tokenizer = tiny_models._text_tokenizer()
    tokenizer.add_special_tokens(["<image>"])
    tiny_models._save_tokenizer(tokenizer, folder, {"tokenizer_class": "PreTrainedTokenizerFast"})
    token = tokenizer.token_to_id("<image>")
    text = transformers.LlamaConfig(**LAYERS, **ROLES, vocab_size=tokenizer.get_vocab_size())
    vision = transformers.CLIPVisionConfig(**VISION)
    config = transformers.LlavaConfig(text_config=text, vision_config=vision, vision_feature_layer=-1)
    config.image_token_index = config.image_token_id = token
    torch.manual_seed(1)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(**EDGE, crop_size={"height": 32, "width": 32}),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def make(task: str, folder: Path) -> None:
    """Write the task's model into a folder."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    if task in ("text-generation", "video-classification"):  # not read for the latter
        tiny_models.make_bloom(folder, 1)
        return
    if task == "decision":
        make_decider(folder)
        return
    if task in ("image-text-to-text", "any-to-any"):
        make_llava(folder)
        return
    if task == "automatic-speech-recognition":
        tiny_models.make_whisper(folder, 1)
        return
    recipe = RECIPES[task]
    sizes = {name: dict(value) if isinstance(value, dict) else value for name, value in recipe.sizes.items()}
    if recipe.tokenizer == "bytes":
        tokenizer = tiny_models._text_tokenizer()
        vocabulary = tokenizer.get_vocab_size()
        tiny_models._save_tokenizer(tokenizer, folder, PLAIN)
        sizes.update(ROLES)
    elif recipe.tokenizer:
        vocabulary = len(tiny_models._save_word_pieces(folder, recipe.tokenizer))
    if recipe.tokenizer:
        sizes.get("text_config", sizes)["vocab_size"] = vocabulary
    torch.manual_seed(1)
    model = getattr(transformers, recipe.model)(getattr(transformers, recipe.config)(**sizes))
    model.save_pretrained(folder)
    if recipe.processor:
        getattr(transformers, recipe.processor)(**recipe.options).save_pretrained(folder)


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
