"""Computes the modules in `modules.json` of a sentence-transformers repository, without that package.

The sentence-transformers package is not in every base image, requires certain releases of transformers (6.2 requires
5.0 or newer), and depends on scikit-learn and scipy, 200 MB. The modules of the Hub's text encoders are a few lines of
torch each, so they are implemented here, with the results of release 6.2.0. Other modules are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import StartError
from .complete import Incomplete

MODULES = "modules.json"
CONFIG = "config_sentence_transformers.json"

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""The pooling modes, in the order in which sentence-transformers concatenates the vectors of several."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The modes' names in configurations of sentence-transformers before 5.4."""

_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_HARMLESS = frozenset(
    {
        *("max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"),
        *("unpad_inputs", "query_length", "document_length", "query_expansion"),
        *("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"),
    }
)
_OPTIONS_OF_LOADING = frozenset({"attn_implementation", "dtype", "torch_dtype", "use_memory_efficient_attention"})
"""Options of from_pretrained that change how the model runs, not its results."""

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_FEATURES = ("token_embeddings", "sentence_embedding")

Features = dict[str, Any]
"""The data passed between modules: `token_embeddings`, `attention_mask`, `prompt_length`, `sentence_embedding`."""

Module = Callable[[Features], None]
"""A function that adds features or changes them in place."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to compute the embedding of a text."""

    modules: tuple[tuple[str, Path, Mapping[str, Any]], ...]
    """The modules after the model: type, folder and configuration of each."""

    max_tokens: int | None = None
    """Tokens after which a text is truncated. Default: the tokenizer's `model_max_length`."""

    lower_case: bool = False
    """Whether to convert texts to lower case before tokenization."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    """Name -> prompt that can be prepended to texts."""

    default_prompt: str | None = None
    """The name of the prompt for requests that name none."""

    similarity: str = "cosine"
    """The similarity function of two embeddings."""

    dimensions: int | None = None
    """The number of leading dimensions to keep. Default: all."""

    from_repository: bool = True
    """Whether these settings come from the model's repository."""

    @property
    def mode(self) -> str | None:
        """The only pooling mode of a recipe that does not come from a repository."""
        return _modes(self.modules[0][2])[0] if self.modules else None

    @property
    def normalizes(self) -> bool:
        """Whether embeddings are normalized to length 1."""
        return bool(self.modules) and self.modules[-1][0] == "Normalize"

    @property
    def includes_prompt(self) -> bool:
        """Whether pooling includes the tokens of the prompt."""
        return all(config.get("include_prompt", True) for kind, _, config in self.modules if kind == "Pooling")


def pooled_by(mode: str | None) -> Recipe:
    """Return the recipe of a model without modules, which sentence-transformers pools by mean; None for no pooling."""
    return Recipe(modules=(("Pooling", Path(), {"pooling_mode": mode}),) if mode else (), from_repository=False)


def weights_of(modules: Path, names: Collection[str]) -> list[str]:
    """Return the weight files of a repository's modules, safetensors before pickles."""
    rows = _json(modules)
    folders = {str(row.get("path") or "") for row in rows if isinstance(row, dict)} if isinstance(rows, list) else set()
    found = []
    for folder in sorted(folders - {""}):
        found += [f"{folder}/{file}" for file in _WEIGHTS if f"{folder}/{file}" in names][:1]
    return found


def config_of(folder: Path) -> Mapping[str, Any]:
    """Return `config_sentence_transformers.json`; empty if there is none."""
    config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return config if isinstance(config, dict) else {}


def transformer_config(folder: Path) -> Mapping[str, Any]:
    """Return the settings of the Transformer module, such as `sentence_bert_config.json`; empty if there are none."""
    file = next((folder / one for one in _TRANSFORMER_CONFIGS if (folder / one).is_file()), None)
    config = _json(file) if file else {}
    return config if isinstance(config, dict) else {}


def kind_of_repository(folder: Path) -> str | None:
    """Return the model class, such as `SentenceTransformer` or `CrossEncoder`; None for other repositories."""
    named = config_of(folder).get("model_type")
    if named:
        return str(named)
    return "SentenceTransformer" if (folder / MODULES).is_file() else None


def task_of(folder: Path, name: str) -> str | None:
    """Return the task of a sentence-transformers repository; None for other repositories."""
    kind = kind_of_repository(folder)
    if kind is None:
        return None
    if kind == "CrossEncoder":
        _require_one_module(folder, name)
        return "text-classification"
    if kind == "SentenceTransformer":
        return "sentence-embeddings"
    raise StartError(
        f"{CONFIG} of {name} says that it is a {kind} of sentence-transformers, which this server does not compute: "
        "load it in model_fn of code/inference.py, or set HF_TASK to what its model alone is for, such as 'fill-mask'"
    )


def _require_one_module(folder: Path, name: str) -> None:
    rows = _json(folder / MODULES) if (folder / MODULES).is_file() else []
    others = [str(row.get("type")) for row in rows if not str(row.get("type")).endswith(".Transformer")]
    if others:
        raise StartError(
            f"{MODULES} of {name} makes its scores by {', '.join(others)}, which this server does not compute: load it "
            "in model_fn of code/inference.py, with sentence-transformers in code/requirements.txt"
        )


def read_recipe(folder: Path, name: str, incomplete: Incomplete) -> Recipe:
    """Return the recipe of a folder with a `modules.json`; unsupported parts are refused, or go to `incomplete`."""
    rows = _json(folder / MODULES)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise StartError(
            f"{MODULES} of {name} is no list of modules: deliver the file that sentence-transformers wrote"
        )
    modules: list[tuple[str, Path, Mapping[str, Any]]] = []
    for number, row in enumerate(rows):
        kind, below = _kind(row, name), _below(folder, row, name)
        if (kind == "Transformer") != (number == 0):
            raise StartError(
                f"{MODULES} of {name} has the module {kind} in place {number}, and this server knows repositories that "
                "begin with a Transformer and have no other: load it in model_fn of code/inference.py"
            )
        if kind == "Transformer" and below != folder:
            raise StartError(
                f"{MODULES} of {name} has its Transformer in the folder '{row['path']}': deliver the files of that "
                "folder at the top, as sentence-transformers writes them since 2.0"
            )
        if number and kind != "Dropout":  # Dropout does nothing at inference
            modules.append((kind, below, _module_config(below, kind, name)))
    transformer = transformer_config(folder)
    _check_transformer(transformer, name, incomplete)
    config = config_of(folder)
    if not any(kind == "Pooling" for kind, _, _ in modules):
        raise StartError(
            f"{MODULES} of {name} has no Pooling, so it makes no vector of a text: set HF_TASK to 'feature-extraction' "
            "for the vectors of its tokens"
        )
    similarity = config.get("similarity_fn_name") or "cosine"
    if similarity not in SIMILARITIES:
        incomplete.add(f"{CONFIG} of {name} compares by '{similarity}', which is not known here")
        similarity = "cosine"
    named = config.get("prompts") or {}
    prompts = {"query": "", "document": "", **{str(key): str(text) for key, text in named.items() if text is not None}}
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        incomplete.add(f"{CONFIG} of {name} names the default prompt '{default}', which is not among its prompts")
        default = None
    options = {**(transformer.get("tokenizer_args") or {}), **(transformer.get("processor_kwargs") or {})}
    return Recipe(
        modules=tuple(modules),
        max_tokens=options.get("model_max_length") or transformer.get("max_seq_length"),
        lower_case=bool(transformer.get("do_lower_case")),
        prompts=prompts,
        default_prompt=default,
        similarity=similarity,
        dimensions=config.get("truncate_dim"),
    )


def build(recipe: Recipe, device: Any) -> list[Module]:
    """Build the modules after the model, with weights in float32."""
    return [_BUILDERS[kind](folder, config, device) for kind, folder, config in recipe.modules]


def dimensions_of(recipe: Recipe, hidden: int) -> int:
    """Return the dimension of the embeddings, for a model with hidden size `hidden`."""
    size = hidden
    for kind, _, config in recipe.modules:
        if kind == "Pooling":
            size *= len(_modes(config))
        elif kind == "Dense":
            size = int(config["out_features"])
    return size


def _kind(row: Mapping[str, Any], name: str) -> str:
    full = str(row.get("type"))
    package, _, kind = full.rpartition(".")
    if package.partition(".")[0] != "sentence_transformers" or kind not in _KNOWN:
        raise StartError(
            f"{MODULES} of {name} has the module {full}, which this server does not compute. It knows "
            f"{', '.join(_KNOWN)}: load the model in model_fn of code/inference.py, with sentence-transformers in "
            "code/requirements.txt, or set HF_TASK to 'feature-extraction' for the vectors of its tokens"
        )
    return kind


def _below(folder: Path, row: Mapping[str, Any], name: str) -> Path:
    path = str(row.get("path") or "")
    below = (folder / path).absolute()
    if path and (Path(path).is_absolute() or ".." in Path(path).parts):
        raise StartError(f"{MODULES} of {name} names the folder '{path}', which is not below it")
    return folder if not path else below


def _module_config(below: Path, kind: str, name: str) -> Mapping[str, Any]:
    file = below / "config.json"
    if not file.is_file():
        if kind == "Normalize":  # it had no config.json before sentence-transformers 5.4
            return {}
        raise StartError(
            f"{name} has no {below.name}/config.json, by which {MODULES} makes vectors of texts ({kind}): deliver the "
            "repository with all of its folders"
        )
    config = _json(file)
    if not isinstance(config, dict):
        raise StartError(f"{below.name}/config.json of {name} is no object: deliver the file that was saved")
    if kind == "Pooling":
        for mode in _modes(config):
            if mode not in POOLING_MODES:
                raise StartError(
                    f"{below.name}/config.json of {name} pools by '{mode}', which is not known here: it knows "
                    f"{', '.join(POOLING_MODES)}"
                )
    for key in ("module_input_name", "module_output_name"):
        if (config.get(key) or "sentence_embedding") not in _FEATURES:
            raise StartError(
                f"{below.name}/config.json of {name} has {key} '{config[key]}', and this server has "
                f"{' and '.join(_FEATURES)}: load the model in model_fn of code/inference.py"
            )
    if kind == "Dense":
        _activation(config, below.name, name)
    return config


def _check_transformer(config: Mapping[str, Any], name: str, incomplete: Incomplete) -> None:
    """Report settings that would change the inputs or results and that this server does not support."""
    odd = sorted(key for key in config.keys() - _HARMLESS if config[key])
    if config.get("transformer_task") not in (None, "feature-extraction"):
        odd.append("transformer_task")
    text = (config.get("modality_config") or {}).get("text", {"method": "forward"})
    if text.get("method") != "forward" or text.get("method_output_name", "last_hidden_state") != "last_hidden_state":
        odd.append("modality_config")
    if config.get("module_output_name") not in (None, "token_embeddings"):
        odd.append("module_output_name")
    if config.get("query_expansion"):
        odd.append("query_expansion")
    for key in ("model_args", "model_kwargs", "config_args", "config_kwargs"):
        odd += [f"{key}.{option}" for option in (config.get(key) or {}) if option not in _OPTIONS_OF_LOADING]
    for key in ("tokenizer_args", "processor_kwargs"):
        odd += [f"{key}.{option}" for option in (config.get(key) or {}) if option != "model_max_length"]
    if odd:
        incomplete.add(f"{_TRANSFORMER_CONFIGS[0]} of {name} says what this server does not do: {', '.join(odd)}")


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StartError(f"{file} cannot be read: {error}") from error


# implementations of the modules


def _modes(config: Mapping[str, Any]) -> tuple[str, ...]:
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [one for key, one in _OLD_POOLING.items() if config.get(key)] or ["mean"]
    return (mode,) if isinstance(mode, str) else tuple(map(str, mode))


def _pooling(folder: Path, config: Mapping[str, Any], device: Any) -> Module:
    modes, includes_prompt = _modes(config), config.get("include_prompt", True)

    def pool(features: Features) -> None:
        import torch

        tokens, mask = features["token_embeddings"], features["attention_mask"]
        kept = mask if includes_prompt else _without_prompt(mask, features["prompt_length"])
        features["sentence_embedding"] = torch.cat([_pooled(mode, tokens, kept, mask) for mode in modes], dim=-1)

    return pool


def _without_prompt(mask: Any, prompt_length: int) -> Any:
    import torch

    first = mask.argmax(dim=1, keepdim=True)
    return mask * (torch.arange(mask.shape[1], device=mask.device)[None] >= first + prompt_length)


def _pooled(mode: str, tokens: Any, kept: Any, mask: Any) -> Any:
    """Pool the tokens in `kept`; `mask` also includes the tokens of an excluded prompt."""
    import torch

    weights = kept[..., None].to(tokens.dtype)
    rows = torch.arange(tokens.shape[0], device=tokens.device)
    match mode:
        case "cls":
            return tokens[rows, kept.argmax(dim=1)]
        case "lasttoken":
            last = kept.shape[1] - 1 - kept.flip(1).argmax(dim=1)
            return tokens[rows, last] * weights[rows, last]
        case "max":
            return tokens.masked_fill(weights == 0, float("-inf")).amax(dim=1)
        case "weightedmean":  # each token's weight is its position, from 1
            weights = weights * (mask.cumsum(dim=1)[..., None]).to(tokens.dtype)
    total, count = (tokens * weights).sum(dim=1), weights.sum(dim=1).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


def _dense(folder: Path, config: Mapping[str, Any], device: Any) -> Module:
    import torch

    source = config.get("module_input_name") or "sentence_embedding"
    target = config.get("module_output_name") or source
    state = _weights(folder, device)
    activation = _activation(config, folder.name, str(folder.parent)).to(device)
    try:
        weight, bias = state["linear.weight"], state.get("linear.bias") if config.get("bias", True) else None
        shape = (int(config["out_features"]), int(config["in_features"]))
    except KeyError as error:
        raise StartError(
            f"{folder.name} of {folder.parent} lacks {error}: deliver the folder as it was saved"
        ) from error
    if tuple(weight.shape) != shape:
        raise StartError(f"the weights in {folder.name} of {folder.parent} do not fit its config.json: deliver both")

    def transform(features: Features) -> None:
        given = features[source]
        made = activation(torch.nn.functional.linear(given, weight, bias))
        if config.get("use_residual"):
            projection = state.get("residual.weight")
            made = made + (given if projection is None else torch.nn.functional.linear(given, projection))
        features[target] = made

    return transform


def _activation(config: Mapping[str, Any], folder: str, name: str) -> Any:
    try:
        return activation_named(str(config.get("activation_function", "torch.nn.modules.activation.Tanh")))
    except ValueError as error:
        raise StartError(f"{folder}/config.json of {name} has the activation {error}") from error


def activation_named(full: str) -> Any:
    """Return a torch activation by its full name; raises `ValueError` for any other class, which is not imported."""
    import torch

    package, _, kind = full.rpartition(".")
    known = vars(torch.nn).get(kind) if package.startswith("torch.nn") else None
    where = known.__module__ if isinstance(known, type) else ""
    if known is None or not (where == "torch.nn.modules.activation" or known is torch.nn.Identity):
        raise ValueError(f"{full}, which is none of torch's: load the model in model_fn of code/inference.py")
    try:
        return known()
    except TypeError as error:
        raise ValueError(f"{full}, which wants options ({error}): load it in model_fn of code/inference.py") from error


def _layer_norm(folder: Path, config: Mapping[str, Any], device: Any) -> Module:
    import torch

    state = _weights(folder, device)
    norm = torch.nn.LayerNorm(int(config["dimension"]), device=device)
    norm.load_state_dict({key.removeprefix("norm."): value for key, value in state.items()})
    norm.eval()

    def normalise(features: Features) -> None:
        features["sentence_embedding"] = norm(features["sentence_embedding"])

    return normalise


def _normalize(folder: Path, config: Mapping[str, Any], device: Any) -> Module:
    source = config.get("module_input_name") or "sentence_embedding"
    target = config.get("module_output_name") or source

    def scale(features: Features) -> None:
        import torch

        if source in features:
            features[target] = torch.nn.functional.normalize(features[source], p=2, dim=-1)

    return scale


def _weights(folder: Path, device: Any) -> dict[str, Any]:
    """Load a module's tensors in float32, from safetensors or else from a pickle, with weights_only."""
    import torch

    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise StartError(
            f"{folder.parent} has no weights in {folder.name} ({' or '.join(_WEIGHTS)}), by which {MODULES} makes "
            "vectors of texts: deliver the repository with all of its folders"
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            _require_safe_pickles()
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise StartError(
            f"{folder.name}/{file.name} of {folder.parent} cannot be read ({type(error).__name__}: {error}): deliver "
            "or upload it again"
        ) from error
    return {key: value.to(device=device, dtype=torch.float32) for key, value in state.items()}


def _require_safe_pickles() -> None:
    """Raise `ValueError` if transformers refuses pickles because torch is too old (CVE-2025-32434)."""
    from transformers.utils import import_utils

    getattr(import_utils, "check_torch_load_is_safe", lambda: None)()


_BUILDERS: Mapping[str, Callable[[Path, Mapping[str, Any], Any], Module]] = {
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Pooling": _pooling,
}
_KNOWN = ("Transformer", *_BUILDERS, "Dropout")
