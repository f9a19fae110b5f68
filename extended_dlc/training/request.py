"""The requests of CreateTrainingJob for a training and for the evaluation of its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from extended_dlc.decisions.training import CODE_CHANNEL, arguments_of
from extended_dlc.options._values import instance_names
from extended_dlc.options.training import EvaluationGate, HyperParameter
from extended_dlc.training.given import MERGE_ADAPTER, TrainingOptions
from extended_dlc.training.inputs import Inputs
from extended_dlc.training.machine import State, s3_channel
from extended_dlc.training.model import MODELS

if TYPE_CHECKING:
    from aws_cdk import aws_sagemaker as sagemaker

CHECKPOINTS = "/opt/ml/checkpoints"

_CODE = f"/opt/ml/input/data/{CODE_CHANNEL}"

_TORCHRUN = "sagemaker_torch_distributed_enabled"
"""Makes the image's entry point start the script with torchrun (sagemaker-pytorch-training, `training.py`)."""


@dataclass(frozen=True, kw_only=True)
class _Script:
    """One script of the code, with its inputs, instances and output."""

    entry_point: str
    hyperparameters: Mapping[str, HyperParameter]
    channels: Mapping[str, str]
    environment: Mapping[str, str]
    instance_count: int
    max_runtime_seconds: int
    output: str
    """The prefix of the results in the bucket."""

    compression: str
    metrics: Mapping[str, str] = field(default_factory=dict)
    torchrun: bool = False


@dataclass(frozen=True, kw_only=True)
class Requests:
    """A training's requests without the job's name, which the state machine generates."""

    job_name: str
    options: TrainingOptions
    image_uri: str
    role_arn: str
    bucket_name: str
    region: str
    inputs: Inputs
    vpc: sagemaker.CfnModel.VpcConfigProperty | None

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """The environment variables of the training container."""
        return self.options.variables()

    def training(self) -> list[State]:
        """The training's request for each instance type in order of preference."""
        options, instances = self.options, self.options.instances
        script = _Script(
            entry_point=options.code.entry_point,
            hyperparameters=options.hyperparameters,
            channels=self.inputs.channels,
            environment=self.environment,
            metrics=options.metrics,
            instance_count=instances.count,
            torchrun=instances.distribution == "torchrun",
            max_runtime_seconds=instances.max_runtime_seconds,
            output=MODELS.rstrip("/"),
            compression="NONE",  # uncompressed, so that an endpoint starts without unpacking
        )
        kept = self._interruptions()
        return [self._request(script, each) | kept for each in instances.instance_types]

    def evaluation(self) -> list[State]:
        """The evaluation's request for each instance type; none without a gate."""
        gate = self.options.result.gate
        if gate is None:
            return []
        script = _Script(
            entry_point=gate.entry_point,
            hyperparameters=gate.hyperparameters or {},
            channels=self._channels_of(gate),
            environment={name: value for name, value in self.environment.items() if name != MERGE_ADAPTER},
            instance_count=1,
            max_runtime_seconds=gate.max_runtime_seconds,
            output="evaluations",
            compression="GZIP",  # the evaluation's output is one small archive
        )
        types: Sequence[str] = self.options.instances.instance_types
        if gate.instance_type is not None:
            types = instance_names(gate.instance_type)
        return [self._request(script, each) for each in types]

    def made_of(self) -> dict[str, Any]:
        """The inputs of a training: where they change, its result is expected to change."""
        return {
            "image": self.image_uri,
            "code": self.inputs.code.key,
            "inputs": self.inputs.channels,
            "arguments": arguments_of(self.options.hyperparameters),
            "environment": self.environment,
        }

    def _channels_of(self, gate: EvaluationGate) -> dict[str, str]:
        wanted = {CODE_CHANNEL, *(gate.channels or [name for name in self.options.channels if name != "train"])}
        return {name: uri for name, uri in self.inputs.channels.items() if name in wanted}

    def _request(self, script: _Script, instance_type: str) -> State:
        key = self.options.encryption_key
        request: State = {
            "AlgorithmSpecification": {
                "TrainingImage": self.image_uri,
                "TrainingInputMode": "File",
                **_metrics(script.metrics),
            },
            "RoleArn": self.role_arn,
            "HyperParameters": self._arguments(script),
            "OutputDataConfig": {
                "S3OutputPath": f"s3://{self.bucket_name}/{script.output}",
                "CompressionType": script.compression,
                **({"KmsKeyId": key.key_arn} if key else {}),
            },
            "ResourceConfig": self._resources(script, instance_type),
            "StoppingCondition": {"MaxRuntimeInSeconds": script.max_runtime_seconds},
        }
        if script.channels:
            request["InputDataConfig"] = [s3_channel(name, uri=uri) for name, uri in sorted(script.channels.items())]
        if script.environment:
            request["Environment"] = script.environment
        return request | self._surroundings()

    def _resources(self, script: _Script, instance_type: str) -> dict[str, Any]:
        instances, key = self.options.instances, self.options.encryption_key
        resources: dict[str, Any] = {
            "InstanceType": instance_type,
            "InstanceCount": script.instance_count,
            "VolumeSizeInGB": instances.volume_gb,
        }
        storage = {each.name: each.local_storage_gb for each in instances.found}
        if key is not None and not storage.get(instance_type):
            resources["VolumeKmsKeyId"] = key.key_arn
        return resources

    def _arguments(self, script: _Script) -> dict[str, str]:
        """The hyperparameters, with those of the toolkit itself (sagemaker-training, `params.py`)."""
        code = self.inputs.code
        location = f"s3://{code.bucket}/{code.key}"
        if self.options.network_isolation:
            location = f"{_CODE}/{code.key.rpartition('/')[2]}"
        return {
            **{name: _as_sagemaker_reads(value) for name, value in arguments_of(script.hyperparameters).items()},
            "sagemaker_program": script.entry_point,
            "sagemaker_submit_directory": location,
            "sagemaker_container_log_level": "20",
            "sagemaker_region": self.region,
            **({_TORCHRUN: "true"} if script.torchrun else {}),
        }

    def _surroundings(self) -> dict[str, Any]:
        """The network and the tags."""
        found: dict[str, Any] = {}
        if self.vpc is not None:
            found["VpcConfig"] = {"SecurityGroupIds": self.vpc.security_group_ids, "Subnets": self.vpc.subnets}
        if self.options.network_isolation:
            found["EnableNetworkIsolation"] = True
        if self.options.tags:
            found["Tags"] = [{"Key": key, "Value": value} for key, value in sorted(self.options.tags.items())]
        return found

    def _interruptions(self) -> dict[str, Any]:
        """The checkpoints of a job that may be stopped, and spot capacity, which may stop it."""
        instances = self.options.instances
        fields: dict[str, Any] = {}
        if instances.checkpoints:
            # each run has its own checkpoints, because a later run starts over
            where = f"States.Format('s3://{self.bucket_name}/checkpoints/{self.job_name}/{{}}/', "
            fields["CheckpointConfig"] = {"S3Uri.$": f"{where}$$.Execution.Name)", "LocalPath": CHECKPOINTS}
        if instances.spot:
            runtime = instances.max_runtime_seconds
            fields["EnableManagedSpotTraining"] = True
            fields["StoppingCondition"] = {
                "MaxRuntimeInSeconds": runtime,
                "MaxWaitTimeInSeconds": instances.max_wait_seconds or 2 * runtime,
            }
        if instances.count > 1 and self.options.encryption_key is not None:
            fields["EnableInterContainerTrafficEncryption"] = True
        return fields


def _metrics(metrics: Mapping[str, str]) -> dict[str, Any]:
    if not metrics:
        return {}
    return {"MetricDefinitions": [{"Name": name, "Regex": regex} for name, regex in metrics.items()]}


def _as_sagemaker_reads(value: str) -> str:
    """A value that survives sagemaker-training's JSON decoding: a string that looks like JSON is JSON-encoded."""
    try:
        read = json.loads(value)
    except ValueError:
        return value
    return json.dumps(value) if isinstance(read, (dict, list, str)) or read is None else value
