"""Builds an image of an `ImageStack` again by the clock, which picks up a base that was patched in place.

The build also lists the tags of the base's repository, and says whether AWS has a newer one. AWS's own repositories let
other accounts list them (AWS Neuron documentation, "DLC Images": `aws ecr list-images --registry-id 763104351884`).
"""

from __future__ import annotations

import json

from aws_cdk import TimeZone
from aws_cdk import aws_iam as iam
from constructs import Construct

from extended_dlc.images.cloud_build import SPEC, grant_listing, proxy_variables
from extended_dlc.images.image import ExtendedDlc
from extended_dlc.options.build import CloudBuild
from extended_dlc.options.sharing import Rebuilds


def build_again(home: Construct, image: ExtendedDlc, rebuilds: Rebuilds, build: CloudBuild) -> None:
    """Let EventBridge Scheduler start the deployment's build, with the scheduled time as `rebuild`."""
    from aws_cdk import aws_scheduler as scheduler
    from aws_cdk import aws_scheduler_targets as targets

    built = image.cloud_build
    assert built is not None  # noqa: S101 - built by CloudBuild
    grant_listing(built.project, base=str(image.decided.base))
    more = " --look-for-newer-base" + (" --only-for-newer-base" if rebuilds.only_for_newer_base else "")
    variables = {
        "PROGRAM": built.program,
        "ARGUMENTS": built.arguments + more,
        "REBUILD": "<aws.scheduler.scheduled-time>",
        **proxy_variables(build),
    }
    scheduler.Schedule(
        home,
        "Rebuild",
        description=f"Builds {home.node.path} again",
        schedule=scheduler.ScheduleExpression.expression(rebuilds.schedule, TimeZone.of(rebuilds.timezone)),
        target=targets.Universal(
            service="codebuild",
            action="startBuild",
            input=scheduler.ScheduleTargetInput.from_object(
                {
                    "ProjectName": built.project.project_name,
                    "SourceTypeOverride": "NO_SOURCE",
                    "ArtifactsOverride": {"Type": "NO_ARTIFACTS"},
                    "BuildspecOverride": json.dumps(SPEC),
                    "TimeoutInMinutesOverride": build.timeout_minutes,
                    "EnvironmentVariablesOverride": [
                        {"Name": name, "Value": value, "Type": "PLAINTEXT"} for name, value in variables.items()
                    ],
                }
            ),
            policy_statements=[
                iam.PolicyStatement(actions=["codebuild:StartBuild"], resources=[built.project.project_arn])
            ],
        ),
    )
    if rebuilds.failure_topic is not None:
        from aws_cdk import aws_events_targets as event_targets

        built.project.on_build_failed("Failed", target=event_targets.SnsTopic(rebuilds.failure_topic))
