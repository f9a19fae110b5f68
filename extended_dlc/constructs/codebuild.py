"""A CodeBuild build that a deployment starts and waits for.

A custom resource waits an hour at most, so it only starts the build. A wait condition waits as long as the build may
take; it accepts one signal and cannot be updated, so each build has its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import CfnWaitCondition, CfnWaitConditionHandle
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import custom_resources as custom
from constructs import Construct

from extended_dlc.constructs.functions import call_aws

QUEUE_SECONDS = 1800
"""How long a build may be queued, in addition to its own time."""

LONGEST_SECONDS = 8 * 3600


def build_spec(commands: Sequence[str], failure: str) -> dict[str, Any]:
    """A build specification that signals a failure to the wait condition in any case.

    :param failure: The reason for failures that the commands do not report; a second signal changes nothing.
    """
    body = json.dumps({"Status": "FAILURE", "UniqueId": "build", "Reason": failure, "Data": ""})
    return {
        "version": "0.2",
        "phases": {
            "build": {"commands": list(commands)},
            "post_build": {
                "commands": [
                    'test "$CODEBUILD_BUILD_SUCCEEDING" = 1 || test -z "$SIGNAL" || curl --silent --show-error '
                    f"--request PUT --header 'Content-Type:' --data-binary '{body}' \"$SIGNAL\""
                ]
            },
        },
    }


def start_and_wait(
    scope: Construct,
    project: codebuild.IProject,
    *,
    resource_type: str,
    spec: Mapping[str, Any],
    variables: Mapping[str, str],
    key: str,
    physical_id: str,
    seconds: int,
    ready_id: str = "Built",
) -> CfnWaitCondition:
    """Start a build with the deployment and wait for its signal to the URL in the variable SIGNAL.

    :param key: Identifies the build within the scope: a change of it builds again.
    :param seconds: How long the build may take.
    :param ready_id: Start of the wait condition's id.
    """
    handle = CfnWaitConditionHandle(scope, f"Handle{key}")
    given = {**variables, "SIGNAL": handle.ref}
    call = _start_build(project, spec, given, seconds, physical_id)
    allowed = iam.PolicyStatement(actions=["codebuild:StartBuild"], resources=[project.project_arn])
    start = call_aws(scope, "Start", resource_type=resource_type, call=call, allowed=allowed)
    # The role's policy must exist before the build starts; the project itself is named by the call.
    if project.role is not None:
        start.node.add_dependency(project.role)
    wait = CfnWaitCondition(scope, f"{ready_id}{key}", handle=handle.ref, count=1, timeout=str(seconds + QUEUE_SECONDS))
    wait.node.add_dependency(start)
    return wait


def _start_build(
    project: codebuild.IProject, spec: Mapping[str, Any], variables: Mapping[str, str], seconds: int, physical_id: str
) -> custom.AwsSdkCall:
    return custom.AwsSdkCall(
        service="codebuild",
        action="startBuild",
        parameters={
            "projectName": project.project_name,
            # Of a given project only the role, the network and the machine are used.
            "sourceTypeOverride": "NO_SOURCE",
            "artifactsOverride": {"type": "NO_ARTIFACTS"},
            "buildspecOverride": json.dumps(spec),
            "timeoutInMinutesOverride": seconds // 60,
            "environmentVariablesOverride": [
                {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()
            ],
        },
        physical_resource_id=custom.PhysicalResourceId.of(physical_id),
        # StartBuild's response repeats the request: it is too long for CloudFormation and contains a signed URL.
        output_paths=["build.id"],
    )
