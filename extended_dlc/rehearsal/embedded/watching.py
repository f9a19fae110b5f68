"""Dashboards, metric filters, schedules: types that moto's CloudFormation skips, over moto's own services."""

from __future__ import annotations

from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.logs.models import logs_backends
from moto.scheduler.models import scheduler_backends

from extended_dlc.rehearsal.embedded.resources import Properties, Record, Wish


class Dashboard:
    """`AWS::CloudWatch::Dashboard`."""

    def name_property(self) -> str | None:
        """What names it."""
        return "DashboardName"

    def replaces(self, changed: set[str]) -> bool:
        """By name alone."""
        return "DashboardName" in changed

    def create(self, wish: Wish) -> Any:
        """PutDashboard."""
        cloudwatch_backends[wish.account_id][wish.region].put_dashboard(wish.name, wish.properties["DashboardBody"])
        return Record(wish.name, wish.properties)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """PutDashboard again."""
        return self.create(wish)

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """DeleteDashboards."""
        cloudwatch_backends[wish.account_id][wish.region].delete_dashboards([wish.name])


class MetricFilter:
    """`AWS::Logs::MetricFilter`."""

    def name_property(self) -> str | None:
        """What names it."""
        return "FilterName"

    def replaces(self, changed: set[str]) -> bool:
        """By name or log group."""
        return bool(changed & {"FilterName", "LogGroupName"})

    def create(self, wish: Wish) -> Any:
        """PutMetricFilter."""
        given = wish.properties
        transformations = [
            {f"{key[0].lower()}{key[1:]}": value for key, value in each.items()}
            for each in given["MetricTransformations"]
        ]
        logs_backends[wish.account_id][wish.region].put_metric_filter(
            wish.name,
            given["FilterPattern"],
            given["LogGroupName"],
            transformations,  # type: ignore[arg-type]  # a list, whatever moto declares
        )
        return Record(wish.name, given)

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """PutMetricFilter again."""
        return self.create(wish)

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """DeleteMetricFilter."""
        backend = logs_backends[wish.account_id][wish.region]
        backend.delete_metric_filter(wish.name, wish.properties["LogGroupName"])


class Schedule:
    """`AWS::Scheduler::Schedule`. It is kept, and no clock runs it."""

    def name_property(self) -> str | None:
        """What names it."""
        return "Name"

    def replaces(self, changed: set[str]) -> bool:
        """By name or group."""
        return bool(changed & {"Name", "GroupName"})

    def create(self, wish: Wish) -> Any:
        """CreateSchedule."""
        given = wish.properties
        schedule = scheduler_backends[wish.account_id][wish.region].create_schedule(
            description=given.get("Description", ""),
            end_date=None,  # type: ignore[arg-type]  # absent is None, whatever moto declares
            flexible_time_window=given["FlexibleTimeWindow"],
            group_name=given.get("GroupName", "default"),
            kms_key_arn=None,  # type: ignore[arg-type]
            name=wish.name,
            schedule_expression=given["ScheduleExpression"],
            schedule_expression_timezone=given.get("ScheduleExpressionTimezone", "UTC"),
            start_date=None,  # type: ignore[arg-type]
            state=given.get("State", "ENABLED"),
            target=given["Target"],
            action_after_completion="NONE",
        )
        return Record(wish.name, given, {"Arn": schedule.arn})

    def update(self, wish: Wish, model: Any, old: Properties) -> Any:
        """The schedule again, under its name."""
        self.delete(wish, model, rollback=False)
        return self.create(wish)

    def delete(self, wish: Wish, model: Any, *, rollback: bool) -> None:
        """DeleteSchedule."""
        group = wish.properties.get("GroupName", "default")
        scheduler_backends[wish.account_id][wish.region].delete_schedule(group, wish.name)
