"""Reads a model's facts from the Hub's API. This is the only module that calls it, and it never runs at synth."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from extended_dlc.facts.models import DTYPE_BYTES, SPEECH_TYPES, read_config

HUB = "https://huggingface.co"

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I8": "int8",
    "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
"""safetensors dtype -> torch dtype."""

_HEADER_LIMIT = 100_000_000
"""The longest header that safetensors itself accepts, in bytes."""


class LookupFailed(Exception):
    """The Hub was unreachable or gave no usable response; the message says what to do."""


class HubOutOfReach(LookupFailed):
    """The address gives no response, so requests for other models would fail too."""


def ask_hub(
    model_id: str,
    *,
    revision: str | None = None,
    endpoint: str = HUB,
    token: str | None = None,
    timeout: float = 30,
) -> dict[str, Any]:
    """The Hub's facts of a model, as `facts.models` reads them from cdk.context.json; raises `LookupFailed`.

    :param timeout: Seconds for each request.
    """
    hub = _Hub(endpoint.rstrip("/"), model_id, token, timeout)
    info = hub.json(f"/api/models/{quote(model_id)}/revision/{quote(revision or 'main', safe='')}?blobs=true")
    files = {each["rfilename"]: each.get("size") or 0 for each in info.get("siblings") or ()}
    resolve = f"/{quote(model_id)}/resolve/{quote(str(info.get('sha') or revision or 'main'), safe='')}"
    config = hub.json(f"{resolve}/config.json") if "config.json" in files else info.get("config") or {}
    weights = weight_files(files)
    counted = (info.get("safetensors") or {}).get("parameters") or hub.count(
        f"{resolve}/{quote(file)}" for file in weights if file.endswith(".safetensors")
    )
    read = read_config(config)
    # The card names the task; for a speech model the model type tells it more reliably.
    task = None if read["model_type"] in SPEECH_TYPES else info.get("pipeline_tag")
    return {
        "asked": revision or "main",
        "revision": info.get("sha"),
        **read,
        "task": task,
        "parameters": sum(counted.values()) or None,
        "dtype": _DTYPES.get(Counter(counted).most_common(1)[0][0]) if counted else read["dtype"],
        "weight_bytes": sum(files[file] for file in weights) or None,
        **_access(info),
    }


def ask_hub_of_dataset(
    dataset: str, *, revision: str | None = None, endpoint: str = HUB, token: str | None = None, timeout: float = 30
) -> dict[str, Any]:
    """The Hub's facts of a data set: its commit, whether it is gated, its licence. Raises `LookupFailed`."""
    hub = _Hub(endpoint.rstrip("/"), dataset, token, timeout, kind="data set")
    info = hub.json(f"/api/datasets/{quote(dataset)}/revision/{quote(revision or 'main', safe='')}")
    return {"asked": revision or "main", "revision": info.get("sha"), **_access(info)}


def _access(info: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a repository is gated or private, and its licence."""
    card = info.get("cardData") or {}
    return {
        "gated": bool(info.get("gated")) or bool(info.get("private")),
        "licence": card.get("license_name") or card.get("license"),
    }


def weight_files(files: Iterable[str]) -> list[str]:
    """The weight files at the top of a repository that transformers loads: safetensors if there are any."""
    top = [file for file in files if "/" not in file]
    found = [file for file in top if file.startswith("model") and file.endswith(".safetensors")]
    return found or [file for file in top if file.startswith("pytorch_model") and file.endswith(".bin")]


class _Hub:
    """Requests to the Hub about one model or data set."""

    def __init__(self, endpoint: str, model_id: str, token: str | None, timeout: float, kind: str = "model") -> None:
        self._endpoint = endpoint
        self._kind = kind
        self._model_id = model_id
        self._token = token
        self._timeout = timeout

    def json(self, path: str) -> dict[str, Any]:
        """The JSON object at a path."""
        try:
            answer = json.loads(self._get(path))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise LookupFailed(f"{self._endpoint}{path} is not what the Hub answers: check HF_ENDPOINT")
        return answer

    def count(self, paths: Iterable[str]) -> Mapping[str, int]:
        """The number of parameters per dtype in safetensors files, read from their headers alone."""
        counted: Counter[str] = Counter()
        for path in paths:
            length = int.from_bytes(self._get(path, last=7), "little")
            header = json.loads(self._get(path, first=8, last=7 + min(length, _HEADER_LIMIT)))
            for name, tensor in header.items():
                if name != "__metadata__":
                    first, last = tensor["data_offsets"]
                    size = DTYPE_BYTES.get(_DTYPES.get(tensor["dtype"], ""))
                    counted[tensor["dtype"]] += int((last - first) / size) if size else 0
        return counted

    def _get(self, path: str, first: int = 0, last: int | None = None) -> bytes:
        """The body at a path, or bytes `first` to `last` of it."""
        request = urllib.request.Request(self._endpoint + path, headers={"User-Agent": "extended-dlc"})  # noqa: S310
        if last is not None:
            request.add_header("Range", f"bytes={first}-{last}")
        if self._token:  # not sent to the other host that large files redirect to
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310 - the user's own address
                if last is None:
                    return bytes(response.read())
                skipped = first if response.status != 206 else 0
                return bytes(response.read(last - first + 1 + skipped)[skipped:])
        except urllib.error.HTTPError as error:
            raise LookupFailed(self._refusal(error)) from None
        except (OSError, ValueError) as error:
            raise HubOutOfReach(
                f"{self._endpoint} cannot be reached ({getattr(error, 'reason', error)}): check the network, or name "
                "another address (HF_ENDPOINT)"
            ) from None

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        code = error.headers.get("X-Error-Code", "")
        if error.code == 404 and code == "RevisionNotFound":
            return f"'{self._model_id}' has no such revision: take a commit, tag or branch of its page"
        if error.code in (401, 403, 404):
            return (
                f"the Hub shows no {self._kind} '{self._model_id}' (HTTP {error.code}): correct the name, or, where it "
                "is gated or private, agree to its terms on its page and put your token into HF_TOKEN"
            )
        return f"{self._endpoint} answered with HTTP {error.code}: try again later"
