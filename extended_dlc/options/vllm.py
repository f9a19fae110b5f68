"""How vLLM serves a large text model: `VllmServing`."""

from __future__ import annotations

from dataclasses import dataclass

from extended_dlc.options._kinds import check_types
from extended_dlc.options._values import OptionError, is_token, within


@check_types
@dataclass(frozen=True, kw_only=True)
class VllmServing:
    """How vLLM serves a model; each option is a variable that the image's entry point turns into one of vLLM.

    Options of vLLM that are not here go into the endpoint's `environment`: `SM_VLLM_MAX_NUM_SEQS` is `--max-num-seqs`
    (AWS Deep Learning Containers, "vLLM: Configuration"; vLLM, "Engine Arguments").
    """

    tensor_parallel_size: int | None = None
    """The number of GPUs that share each layer; it must divide the number of the model's attention heads. Default: all
    GPUs of the instance. ValueError for more than it has."""

    max_model_len: int | None = None
    """Tokens of a request, prompt and answer. Default: what the model was trained for, which may be more than the
    memory has room for."""

    gpu_memory_utilization: float | None = None
    """The share of each GPU's memory that vLLM uses, above 0 to 1. Default: vLLM's own, 0.9."""

    dtype: str | None = None
    """Number format of the weights: `auto`, `float16`, `bfloat16` …. Default: vLLM's own, the model's."""

    quantization: str | None = None
    """How the weights are quantised: `awq`, `gptq`, `fp8` …. Default: what the model's config.json says."""

    enforce_eager: bool = False
    """Whether to use no CUDA graphs, which is slower and saves a little memory. Default: no."""

    tool_call_parser: str | None = None
    """The parser of the model's tool calls, such as `hermes`, with which the model may choose tools. Default: none."""

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        within("tensor_parallel_size", self.tensor_parallel_size, 1, None, "leave it out to take all GPUs")
        within("max_model_len", self.max_model_len, 1, None, "leave it out to take the model's own")
        share = self.gpu_memory_utilization
        if share is not None and not is_token(share) and not 0 < share <= 1:
            raise OptionError(
                "gpu_memory_utilization", f"{share:g}", "must be above 0 and at most 1: 0.9 is vLLM's own"
            )

    def environment(self, gpus: int) -> dict[str, str]:
        """The environment variables, on an instance with this number of GPUs."""
        within("tensor_parallel_size", self.tensor_parallel_size, 1, gpus, "take an instance type with more GPUs")
        values = {
            "TENSOR_PARALLEL_SIZE": self.tensor_parallel_size or gpus,
            "MAX_MODEL_LEN": self.max_model_len,
            "GPU_MEMORY_UTILIZATION": self.gpu_memory_utilization,
            "DTYPE": self.dtype,
            "QUANTIZATION": self.quantization,
            "ENFORCE_EAGER": "true" if self.enforce_eager else None,
            "ENABLE_AUTO_TOOL_CHOICE": "true" if self.tool_call_parser else None,
            "TOOL_CALL_PARSER": self.tool_call_parser,
        }
        return {f"SM_VLLM_{name}": str(value) for name, value in values.items() if value is not None}
