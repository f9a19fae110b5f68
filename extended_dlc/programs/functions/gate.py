"""The training's Lambda function: looks at what was trained, judges what was measured, and says why a stack went back.

The state machine calls it with `do`: `look`, `judge` or `why`. What is wrong with a model is an answer, `refused`, and
no error of the function. It needs boto3 and nothing else; the library does not import it.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from typing import Any

import boto3
from botocore.exceptions import ClientError

RELEASE_FILE = "extended_dlc_training.json"
"""What the training's image writes beside the weights: the release that trained, the task, the base model."""

METRICS_FILE = "metrics.json"
ADAPTER_CONFIG = "adapter_config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
"""File name suffixes of PyTorch weights, as the endpoint's server knows them."""

UNTRAINED = "s3://none/"
"""The stack's parameter until a model was accepted, as `TrainedModel` has it."""

LARGEST_BYTES = 1024 * 1024
"""Of a file that is read here."""

REASON_CHARACTERS = 600


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Do what the state machine asks for."""
    return {"look": look, "judge": judge, "why": why}[event["do"]](event)


def look(event: dict[str, Any]) -> dict[str, Any]:
    """Whether the artefact can be served, and which one is served now.

    `Artifact` is where the job or the caller says that it is, `Models` the prefix that the endpoint may read, `Serving`
    the release in the endpoint's image, and `Stack` and `Parameter` name where the live one stands. `Base` and
    `Revision` are the model beside which the endpoint loads an adapter; there is no `Base` where it loads whole models.
    """
    artifact, models = str(event["Artifact"] or "nothing"), str(event["Models"])
    if artifact.startswith("s3://") and not artifact.endswith("/"):
        artifact += "/"
    live = _parameter(event["Stack"], event["Parameter"])
    answer = {"artifact": artifact, "live": live, "refused": ""}
    if not artifact.startswith(models):
        return {
            **answer,
            "refused": f"{artifact} is not below {models}, which is all that the endpoint may read: "
            "give the artefact of an earlier run",
        }
    bucket, _, prefix = artifact.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3")
    names = _names_at_the_top(s3, bucket, prefix)
    if why_not := _refused_files(s3, bucket, prefix, names):
        return {**answer, "refused": f"{artifact} {why_not}"}
    if ADAPTER_CONFIG in names and not any(_is_whole(name) for name in names):
        content = _object(s3, bucket, prefix + ADAPTER_CONFIG)
        if why_not := _refused_adapter(content, event.get("Base"), event.get("Revision")):
            return {**answer, "refused": f"{artifact} {why_not}"}
    if RELEASE_FILE in names and event.get("Serving"):
        content = _object(s3, bucket, prefix + RELEASE_FILE)
        return {**answer, "refused": _refused_release(content, str(event["Serving"]))}
    return answer


def _names_at_the_top(s3: Any, bucket: str, prefix: str) -> list[str]:
    """The files and, with their `/`, the folders of an artefact; those below, as of checkpoints, can be many."""
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"))
    keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
    keys += [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", ())]
    return sorted(key[len(prefix) :] for key in keys if key != prefix)


def _refused_files(s3: Any, bucket: str, prefix: str, names: list[str]) -> str:
    """Why these files are no model that an endpoint can load; empty where they are."""
    save = "save the model with trainer.save_model(os.environ['SM_MODEL_DIR'])"
    is_adapter = ADAPTER_CONFIG in names
    if not names:
        return f"holds nothing: {save}, or give the artefact that an earlier run said at its end"
    if "config.json" not in names and not is_adapter:
        return f"holds {', '.join(names[:5])}, and no config.json: {save}"
    if not any(name.endswith((*WEIGHTS, ".index.json")) for name in names):
        return f"has {ADAPTER_CONFIG if is_adapter else 'config.json'} and no weights: {save}, after the training"
    index = next((name for name in names if name.endswith(".index.json")), None)
    if index is None or index.removesuffix(".index.json") in names:
        return ""
    content = _object(s3, bucket, prefix + index, largest=64 * LARGEST_BYTES)
    try:
        shards = set(json.loads(content or b"{}")["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):  # the endpoint's server says what is wrong with it
        return ""
    if missing := sorted(shards - set(names)):
        return (
            f"lacks {', '.join(map(str, missing[:3]))} of the {len(shards)} files that its {index} names: let one "
            "process save, all of it, before the script ends"
        )
    return ""


def _is_whole(name: str) -> bool:
    """Whether a file holds weights of a whole model, and none of an adapter."""
    return name.endswith(WEIGHTS) and not name.startswith("adapter_")


def _refused_adapter(content: bytes | None, served: str | None, served_revision: str | None) -> str:
    """Why the endpoint cannot load this adapter, or would load it beside another base than its own; else empty."""
    try:
        read = json.loads(content or b"{}")
        base, revision = str(read.get("base_model_name_or_path") or ""), str(read.get("revision") or "")
    except (ValueError, AttributeError):  # the endpoint's server says what is wrong with it
        return ""
    if not served:
        if not base or HUB_ID.fullmatch(base):
            return ""
        return (
            f"is an adapter of {base}, which no endpoint can download: merge it in the training (adapter='merged'), or "
            "serve it beside its base on the Hub (TrainedModel(adapter=True), and adapter='beside')"
        )
    if not HUB_ID.fullmatch(base):  # a folder of the training's container
        return ""
    train = f"train on that (base_model=), or serve {base} as first= of the TrainedModel"
    if _names_differ(base, served):
        return f"is an adapter of {base}, and the endpoint would load it beside {served}: {train}"
    if revision != served_revision and COMMIT.fullmatch(revision) and COMMIT.fullmatch(served_revision or ""):
        return (
            f"is an adapter of {base} at {revision}, and the endpoint would load it beside {served_revision}: give "
            "base_model= and first= the same revision"
        )
    return ""


def _names_differ(one: str, other: str) -> bool:
    """Whether two ids are of different models; the Hub takes any case, and old models also without their namespace."""
    one, other = one.lower(), other.lower()
    if ("/" in one) == ("/" in other):
        return one != other
    return one.rpartition("/")[2] != other.rpartition("/")[2]


def _refused_release(content: bytes | None, serving: str) -> str:
    """Why the endpoint's image does not read what the release that trained has written; empty where it does."""
    try:
        trained = str(json.loads(content or b"{}").get("transformers") or "")
        major, has = int(trained.split(".")[0]), int(serving.split(".")[0])
    except (ValueError, AttributeError):  # nobody knows, which is not wrong
        return ""
    if major <= has:
        return ""
    return (
        f"transformers {trained} trained it, and the endpoint's image has {serving}, an older major release, which "
        f"does not read all of it: build the endpoint's image with transformers {trained}"
    )


def judge(event: dict[str, Any]) -> dict[str, Any]:
    """Whether a model is accepted: by the bound, and where `Beside` says what the live one came to, beside that.

    `Output` is the prefix of the job's output.
    """
    gate = event["Gate"]
    metric = str(gate["metric"])
    value, problem = _metric(str(event["Output"]), metric)
    if value is None:
        return {"accepted": False, "value": None, "refused": problem}
    smaller = gate.get("at_most") is not None
    bound = float(gate["at_most"] if smaller else gate["at_least"])
    word = "at most" if smaller else "at least"
    if (value > bound) if smaller else (value < bound):
        return _refusal(value, f"{metric} is {value:g} and must be {word} {bound:g}: the endpoint stays as it is")
    if event.get("BesideOutput"):
        live, problem = _metric(str(event["BesideOutput"]), metric)
        if live is None:
            return _refusal(value, f"of the live model: {problem}")
        margin = float(gate.get("margin") or 0)
        if (value > live + margin) if smaller else (value < live - margin):
            allowed = f", by more than {margin:g}" if margin else ""
            return _refusal(
                value,
                f"{metric} is {value:g} and worse than the live model's {live:g}{allowed}: the endpoint stays as it is",
            )
    return {"accepted": True, "value": value, "refused": ""}


def _refusal(value: float, why_not: str) -> dict[str, Any]:
    return {"accepted": False, "value": value, "refused": why_not}


def _metric(output: str, metric: str) -> tuple[float | None, str]:
    """The number that an evaluation wrote; or what is wrong with that."""
    bucket, _, prefix = output.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3")
    content = _object(s3, bucket, f"{prefix}data/{METRICS_FILE}")
    if content is None:
        content = _packed(_object(s3, bucket, f"{prefix}output.tar.gz", largest=64 * LARGEST_BYTES))
    if content is None:
        return None, (
            f"the evaluation wrote no {METRICS_FILE} into /opt/ml/output/data (SM_OUTPUT_DATA_DIR): let the gate's "
            "script write an object of names and numbers there"
        )
    try:
        metrics = json.loads(content)
    except (ValueError, RecursionError) as error:
        return None, f"the evaluation's {METRICS_FILE} is no JSON ({error}): write an object of names and numbers"
    if not isinstance(metrics, dict) or metric not in metrics:
        names = ", ".join(sorted(map(str, metrics))[:10]) if isinstance(metrics, dict) else "no object"
        return None, f"the evaluation's {METRICS_FILE} has no '{metric}', but {names or 'nothing'}: name one of those"
    value = metrics[metric]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        if is_number and math.isfinite(value):
            return float(value), ""
    except OverflowError:  # a whole number of more digits than a float has
        pass
    return None, f"the evaluation's '{metric}' is {json.dumps(value)[:40]}, and no number: the model cannot be judged"


def _packed(archive: bytes | None) -> bytes | None:
    """The metrics in `output.tar.gz`; None where there are none."""
    if archive is None:
        return None
    wanted = (METRICS_FILE, f"data/{METRICS_FILE}")
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as packed:
            for member in packed:
                if member.name.removeprefix("./") in wanted and member.size < LARGEST_BYTES:
                    file = packed.extractfile(member)
                    return file.read(LARGEST_BYTES) if file else None
    except (tarfile.TarError, OSError, EOFError, KeyError):  # not whole, or a link to what is not in it
        return None
    return None


def why(event: dict[str, Any]) -> dict[str, Any]:
    """Why the last update of the endpoint's stack went back."""
    pages = boto3.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName=event["Stack"])
    reasons = []
    for each in (each for page in pages for each in page["StackEvents"]):  # the newest first
        is_stack = each["LogicalResourceId"] == each["StackName"]
        if is_stack and each["ResourceStatus"] == "UPDATE_IN_PROGRESS":
            break
        reason = each.get("ResourceStatusReason", "")
        if each["ResourceStatus"].endswith("_FAILED") and "cancelled" not in reason:
            reasons.append(f"{each['LogicalResourceId']}: {reason}")
    cause = reasons[-1][:REASON_CHARACTERS] if reasons else str(event.get("Status", ""))
    return {"refused": f"the endpoint stays as it was, because its stack {event['Stack']} went back: {cause}"}


def _parameter(stack: str, name: str) -> str:
    """The value of a stack's parameter: the artefact that is served; empty until one was."""
    (found,) = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    values = {each["ParameterKey"]: each.get("ParameterValue", "") for each in found.get("Parameters", ())}
    value = str(values.get(name, ""))
    return "" if value == UNTRAINED else value


def _object(s3: Any, bucket: str, key: str, largest: int = LARGEST_BYTES) -> bytes | None:
    """A file; None where there is none, or one that is too large to be read here."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        # without the right to list, an absent object reads as a refused one
        if error.response["Error"]["Code"] in ("NoSuchKey", "404", "AccessDenied"):
            return None
        raise
    return bytes(answer["Body"].read()) if answer["ContentLength"] <= largest else None
