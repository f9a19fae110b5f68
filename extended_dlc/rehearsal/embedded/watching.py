"""Dashboards, metric filters and schedules: types that moto's CloudFormation skips, built on moto's services."""

from __future__ import annotations

from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.logs.models import logs_backends
from moto.scheduler.models import scheduler_backends

from extended_dlc.rehearsal.embedded.resources import Properties, Record, Wish


def put_dashboard(wish: Wish) -> Any:
    """PutDashboard."""
    cloudwatch_backends[wish.account_id][wish.region].put_dashboard(wish.name, wish.properties["DashboardBody"])
    return Record(wish.name, wish.properties)


def delete_dashboard(wish: Wish, model: Any) -> None:
    """DeleteDashboards."""
    cloudwatch_backends[wish.account_id][wish.region].delete_dashboards([wish.name])


def put_metric_filter(wish: Wish) -> Any:
    """PutMetricFilter."""
    given = wish.properties
    transformations = [
        {f"{key[0].lower()}{key[1:]}": value for key, value in each.items()} for each in given["MetricTransformations"]
    ]
    logs_backends[wish.account_id][wish.region].put_metric_filter(
        wish.name,
        given["FilterPattern"],
        given["LogGroupName"],
        transformations,  # type: ignore[arg-type]  # a list, although moto declares otherwise
    )
    return Record(wish.name, given)


def delete_metric_filter(wish: Wish, model: Any) -> None:
    """DeleteMetricFilter."""
    backend = logs_backends[wish.account_id][wish.region]
    backend.delete_metric_filter(wish.name, wish.properties["LogGroupName"])


def create_schedule(wish: Wish) -> Any:
    """CreateSchedule."""
    given = wish.properties
    schedule = scheduler_backends[wish.account_id][wish.region].create_schedule(
        description=given.get("Description", ""),
        end_date=None,  # type: ignore[arg-type]  # None where it is absent, although moto declares otherwise
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


def change_schedule(wish: Wish, model: Any, old: Properties) -> Any:
    """Replace the schedule under its name."""
    delete_schedule(wish, model)
    return create_schedule(wish)


def delete_schedule(wish: Wish, model: Any) -> None:
    """DeleteSchedule."""
    group = wish.properties.get("GroupName", "default")
    scheduler_backends[wish.account_id][wish.region].delete_schedule(group, wish.name)
