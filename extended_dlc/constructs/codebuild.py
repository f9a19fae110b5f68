"""A build of CodeBuild's that a deployment starts and waits for.

A custom resource waits an hour at most, so that it only starts the build. A wait condition waits as long as the build
may take; it hears one signal in its life and takes no update, so that each build has one of its own.
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

QUEUE_SECONDS = 1800
"""How long a build may wait for a machine, besides."""

LONGEST_SECONDS = 8 * 3600


def build_spec(commands: Sequence[str], failure: str) -> dict[str, Any]:
    """A build specification whose end is told to the wait condition whatever goes wrong.

    :param failure: What is told where the commands fail before they can tell; a second signal changes nothing.
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
    """Start a build with the deployment and wait for its signal, whose address is in the variable SIGNAL.

    :param key: Tells this build from every other of the scope: a change of it builds again.
    :param seconds: How long the build may take.
    :param ready_id: What the wait condition's id begins with.
    """
    handle = CfnWaitConditionHandle(scope, f"Handle{key}")
    given = {**variables, "SIGNAL": handle.ref}
    call = custom.AwsSdkCall(
        service="codebuild",
        action="startBuild",
        parameters={
            "projectName": project.project_name,
            # a given project brings its role, its network and its machine, and nothing else
            "sourceTypeOverride": "NO_SOURCE",
            "artifactsOverride": {"type": "NO_ARTIFACTS"},
            "buildspecOverride": json.dumps(spec),
            "timeoutInMinutesOverride": seconds // 60,
            "environmentVariablesOverride": [
                {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in given.items()
            ],
        },
        physical_resource_id=custom.PhysicalResourceId.of(physical_id),
        # StartBuild's whole answer repeats the request: too long for CloudFormation, and with a signed URL in it
        output_paths=["build.id"],
    )
    start = custom.AwsCustomResource(
        scope,
        "Start",
        resource_type=resource_type,
        on_create=call,
        on_update=call,
        policy=custom.AwsCustomResourcePolicy.from_statements(
            [iam.PolicyStatement(actions=["codebuild:StartBuild"], resources=[project.project_arn])]
        ),
        install_latest_aws_sdk=False,
    )
    # what the build may do has to be there before it does it
    start.node.add_dependency(project)
    if project.role is not None:
        start.node.add_dependency(project.role)
    wait = CfnWaitCondition(scope, f"{ready_id}{key}", handle=handle.ref, count=1, timeout=str(seconds + QUEUE_SECONDS))
    wait.node.add_dependency(start)
    return wait
