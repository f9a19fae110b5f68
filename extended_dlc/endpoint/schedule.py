"""Turns an endpoint off and on, to save its cost: a switch in its stack, and the schedules that change it.

The switch is a parameter of the stack. CloudFormation deletes what it turns off and creates it again, so the stack does
not drift, and a `cdk deploy` keeps the parameter's value.
"""

from __future__ import annotations

from typing import cast

from aws_cdk import (
    Annotations,
    CfnCondition,
    CfnParameter,
    CfnResource,
    CliCredentialsStackSynthesizer,
    Duration,
    Fn,
    LegacyStackSynthesizer,
    Stack,
    TimeZone,
)
from aws_cdk import aws_iam as iam
from constructs import Construct, IConstruct

from extended_dlc.constructs.helpers import refuse_nested
from extended_dlc.constructs.stack_updates import MayReadParameters, StackParameters
from extended_dlc.options._kinds import check_types
from extended_dlc.options.schedule import ByHand, OfficeHours


class Switch(Construct):
    """The parameter, its condition, and the schedules that change it; several endpoints of a stack can share one."""

    @check_types
    def __init__(self, scope: Construct, construct_id: str, *, schedule: OfficeHours | ByHand, what: str) -> None:
        """Make a switch that is on.

        :param schedule: `OfficeHours`, which change the parameter, or `ByHand`.
        :param what: What it turns off, for the parameter's description.
        """
        super().__init__(scope, construct_id)
        refuse_nested("schedule", self)
        self.parameter: CfnParameter = CfnParameter(
            self,
            "Enabled",
            type="String",
            allowed_values=["true", "false"],
            default="true",
            description=f"Whether {what} is there, and paid",
        )
        self.condition: CfnCondition = CfnCondition(
            self, "IsEnabled", expression=Fn.condition_equals(self.parameter.value_as_string, "true")
        )
        if isinstance(schedule, OfficeHours):
            self._warn_without_execution_role()
            self._turn("On", at=schedule.start, to="true", schedule=schedule)
            self._turn("Off", at=schedule.end, to="false", schedule=schedule)

    def turns(self, *constructs: IConstruct) -> None:
        """Put the condition on these constructs and all below them, so that they exist only while the switch is on."""
        for construct in constructs:
            if Stack.of(construct) is not Stack.of(self):
                raise ValueError(
                    f"'schedule' (a switch of {Stack.of(self).stack_name}) must be in the stack of what it turns, "
                    f"{Stack.of(construct).stack_name}: make one there"
                )
            for each in construct.node.find_all():
                if CfnResource.is_cfn_resource(each):
                    cast(CfnResource, each).cfn_options.condition = self.condition

    def _warn_without_execution_role(self) -> None:
        """Warn where `cdk deploy` creates the stack with the caller's credentials, which the schedule does not have."""
        synthesizer = Stack.of(self).synthesizer
        if isinstance(synthesizer, (CliCredentialsStackSynthesizer, LegacyStackSynthesizer)):
            Annotations.of(self).add_warning_v2(
                "extended-dlc:schedule-without-role",
                f"'schedule' updates the stack with the role that it was deployed with, and with "
                f"{type(synthesizer).__name__} it has none: the update is refused. Deploy it with 'cdk deploy "
                "--role-arn', with a role that may create all of the stack, or use the default synthesizer",
            )

    def _turn(self, construct_id: str, *, at: str, to: str, schedule: OfficeHours) -> None:
        """Have EventBridge Scheduler update the stack with its current template and this one parameter changed.

        CloudFormation uses the role that the stack was deployed with, which the CDK's bootstrap makes.
        """
        from aws_cdk import aws_scheduler as scheduler
        from aws_cdk import aws_scheduler_targets as targets

        stack = Stack.of(self)
        hour, minute = at.split(":")
        scheduler.Schedule(
            self,
            construct_id,
            description=f"Turns {stack.stack_name} {construct_id.lower()}",
            schedule=scheduler.ScheduleExpression.cron(
                minute=str(int(minute)),
                hour=str(int(hour)),
                week_day=schedule.days,
                time_zone=TimeZone.of(schedule.timezone),
            ),
            target=targets.Universal(
                service="cloudformation",
                action="updateStack",
                input=scheduler.ScheduleTargetInput.from_object(
                    {
                        "StackName": stack.stack_name,
                        "UsePreviousTemplate": True,
                        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
                        "Parameters": StackParameters(self.parameter, {"ParameterValue": to}).lazy,
                    }
                ),
                policy_statements=[
                    # No condition can ask for the previous template: `cloudformation:TemplateUrl` knows a template by
                    # its URL alone, and neither a TemplateBody nor UsePreviousTemplate has one. Another role cannot be
                    # brought either, because this one may pass none.
                    iam.PolicyStatement(actions=["cloudformation:UpdateStack"], resources=[stack.stack_id]),
                    MayReadParameters(stack),
                ],
                # CloudFormation refuses this update during another one: retry for an hour.
                max_event_age=Duration.hours(1),
            ),
        )


Schedule = OfficeHours | ByHand | Switch
"""How an endpoint is turned off and on: by a switch of its own, or by one that it shares."""
