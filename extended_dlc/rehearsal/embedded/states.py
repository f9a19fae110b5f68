"""Step Functions: moto's interpreter of the States language, with the integration `sagemaker:….sync` that it lacks.

`install` enables the interpreter, which moto leaves disabled. Definitions run unchanged. This project adds SageMaker's
integrations, which wait for a job. A state machine's calls are signed with its role, and its functions run in processes
(`functions`).
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from jsonpath_ng.ext.parser import parse
from moto.core.config import default_user_config
from moto.stepfunctions import models as moto_models
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk,
    state_task_service_callback,
    state_task_service_factory,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import ResourceCondition
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_unsupported import (
    StateTaskServiceUnsupported,
)
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.utils import json_path
from moto.stepfunctions.parser.models import StepFunctionsParserBackend, stepfunctions_parser_backends

from extended_dlc.rehearsal.embedded.resources import Properties, Record, Wish
from extended_dlc.rehearsal.embedded.sessions import credentials_of_role

Json = dict[str, Any]

WAIT_SECONDS = 1
"""The longest Wait state in seconds: jobs end sooner here than at AWS."""

_WAITS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "create_training_job": ("describe_training_job", "TrainingJobName", "TrainingJobStatus", ("Completed",)),
    "create_model": ("describe_model", "ModelName", "", ()),
}
"""Operation to its describe operation, the name's parameter, the status member, and the statuses of success."""

_GOING_ON = ("InProgress", "Stopping")

_MODELLED = ("ResourceInUse", "ResourceLimitExceeded", "ResourceNotFound", "ConflictException")
"""Errors of SageMaker's service model; Step Functions reports all others as AmazonSageMakerException."""


class SageMakerTask(StateTaskServiceUnsupported):
    """Integrations such as `arn:aws:states:::sagemaker:createTrainingJob.sync`, and those without `.sync`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # moto's base class ends every wait through the endpoint that it creates only for task tokens
        patterns: Any = {ResourceCondition.WaitForTaskToken, ResourceCondition.Sync}
        self._supported_integration_patterns = patterns  # type: ignore[misc]  # moto's subclasses are given theirs

    def _log_unsupported_warning(self) -> None:
        """The integration is supported here."""

    def _from_error(self, env: Any, ex: Exception) -> FailureEvent:
        """The error with Step Functions' name for it."""
        if not isinstance(ex, ClientError):
            return super()._from_error(env=env, ex=ex)
        code = ex.response["Error"]["Code"]
        known = code.removesuffix("Exception") if code in _MODELLED else "AmazonSageMaker"
        return self._failure(
            env, CustomErrorName(f"SageMaker.{known}Exception"), f"SageMaker.{known}Exception", str(ex)
        )

    def _build_sync_resolver(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: Json, state_credentials: Any
    ) -> Callable[[], Json | None]:
        """A function to poll until the job ends: it returns None, then the description, or raises the failure."""
        env.stack.pop()  # the response of the operation itself
        operation = self._get_boto_service_action()
        describe, key, status, good = _WAITS[operation]
        name = normalised_parameters[key]
        client = role_client(resource_runtime_part.region, "sagemaker", state_credentials)

        def resolve() -> Json | None:
            described = getattr(client, describe)(**{key: name})
            described.pop("ResponseMetadata", None)
            plain: Json = json.loads(json.dumps(described, default=_milliseconds))
            if status and plain[status] in _GOING_ON:
                return None
            if not status or plain[status] in good:
                return plain
            failed = StatesErrorNameType.StatesTaskFailed
            cause = json.dumps(plain)
            raise FailureEventException(self._failure(env, StatesErrorName(typ=failed), failed.to_name(), cause))

        return resolve

    def _failure(self, env: Any, name: Any, error: str, cause: str) -> FailureEvent:
        details = TaskFailedEventDetails(
            resource=self._get_sfn_resource(), resourceType=self._get_sfn_resource_type(), error=error, cause=cause
        )
        return FailureEvent(
            env=env,
            error_name=name,
            event_type=HistoryEventType.TaskFailed,
            event_details=EventDetails(taskFailedEventDetails=details),  # type: ignore[typeddict-item]
        )


def _milliseconds(value: object) -> int:
    """A time in milliseconds, as Step Functions writes it."""
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    raise TypeError(f"{type(value).__name__} is no time")


def create_machine(wish: Wish) -> Any:
    """CreateStateMachine, which also parses the definition."""
    machine = _backend(wish).create_state_machine(
        name=wish.name,
        definition=_definition(wish.properties),
        roleArn=wish.properties["RoleArn"],
        tags=[{"key": tag["Key"], "value": tag["Value"]} for tag in wish.properties.get("Tags", ())],
    )
    return Record(machine.arn, wish.properties, {"Arn": machine.arn, "Name": wish.name})


def update_machine(wish: Wish, model: Any, old: Properties) -> Any:
    """UpdateStateMachine."""
    given = wish.properties
    _backend(wish).update_state_machine(
        model.physical_resource_id, definition=_definition(given), role_arn=given["RoleArn"]
    )
    return Record(model.physical_resource_id, given, model.data)


def delete_machine(wish: Wish, model: Any) -> None:
    """DeleteStateMachine."""
    _backend(wish).delete_state_machine(model.physical_resource_id)


def _backend(wish: Wish) -> Any:
    return stepfunctions_parser_backends[wish.account_id][wish.region]


def _definition(properties: Properties) -> str:
    """The definition with its substitutions applied."""
    given = properties.get("DefinitionString") or properties.get("Definition") or {}
    text = given if isinstance(given, str) else json.dumps(given)
    for name, value in (properties.get("DefinitionSubstitutions") or {}).items():
        text = text.replace(f"${{{name}}}", str(value))
    return text


def extract_json(path: str, data: Any) -> Any:
    """The values at a path. For one value behind an index (`$.a[0].b`) moto returns a list; here it is the value."""
    if not _TO_MANY.search(path):
        found = parse(path).find(data)
        if len(found) == 1:
            return found[0].value
    return json_path.extract_json(path, data)


_TO_MANY = re.compile(r"\.\.|\*|\?|,|\[[^\]']*:")
"""The syntax with which a path can match several values."""

_port = 0


def role_client(region: str, service: str, state_credentials: Any = None) -> Any:
    """A task's boto3 client with the credentials of the state machine's role, where this IAM has it."""
    arn = getattr(state_credentials, "role_arn", None)
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=f"http://localhost:{_port}",
        # a task has no time-out of its own, and only the definition retries it
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}, read_timeout=3600),
        **credentials_of_role(arn, region, "StepFunctions", "states.amazonaws.com"),
    )


def install(*, port: int) -> None:
    """Change moto's Step Functions in this process."""
    global _port
    _port = port
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    moto_models.stepfunctions_backends = stepfunctions_parser_backends  # type: ignore[assignment]
    state_task_service_callback._DELAY_SECONDS_SYNC_CONDITION_CHECK = 0.25  # type: ignore[misc]
    state_task_service_aws_sdk._SERVICE_ERROR_NAMES.update({"sagemaker": "SageMaker", "s3": "S3"})
    wait = WaitFunction._wait_interval

    def wait_shortly(self: WaitFunction, env: Any, wait_seconds: int) -> None:
        wait(self, env, min(wait_seconds, WAIT_SECONDS))

    WaitFunction._wait_interval = wait_shortly  # type: ignore[method-assign]
    begin = StepFunctionsParserBackend.start_execution

    def start_execution(
        self: StepFunctionsParserBackend, state_machine_arn: str, name: str | None = None, *rest: Any, **more: Any
    ) -> Any:
        return begin(self, state_machine_arn, name or str(uuid.uuid4()), *rest, **more)

    StepFunctionsParserBackend.start_execution = start_execution  # type: ignore[method-assign]
    theirs = state_task_service_factory.state_task_service_for

    def service_for(service_name: str) -> Any:
        return SageMakerTask() if service_name == "sagemaker" else theirs(service_name)

    for module in list(sys.modules.values()):
        if module.__name__.startswith("moto.stepfunctions.parser"):
            if getattr(module, "state_task_service_for", None) is theirs:
                module.state_task_service_for = service_for  # type: ignore[attr-defined]
            if hasattr(module, "boto_client_for"):
                module.boto_client_for = role_client  # type: ignore[attr-defined]
            if hasattr(module, "extract_json") and module is not json_path:
                module.extract_json = extract_json  # type: ignore[attr-defined]
