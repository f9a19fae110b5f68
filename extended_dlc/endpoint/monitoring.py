"""The log groups, the alarms and the dashboard of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aws_cdk import RemovalPolicy
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct, IConstruct

from extended_dlc.constructs import principals
from extended_dlc.constructs.keys import log_key, topic_key
from extended_dlc.endpoint.alarms import alarms_of, container_alarms_of
from extended_dlc.endpoint.dashboard import make_dashboard
from extended_dlc.endpoint.watched import COUNTED, watched_parts
from extended_dlc.options._values import OptionError
from extended_dlc.options.hosting import Hosting
from extended_dlc.options.monitoring import COPIES, INSTANCES, ROLLBACK_ALARMS, Monitoring

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_sns as sns

    from extended_dlc.endpoint.parts import ServedPart


def retention_days(retention: logs.RetentionDays | str) -> logs.RetentionDays:
    """The CDK's `RetentionDays` for an option's text."""
    return logs.RetentionDays[retention.upper().replace("-", "_")] if isinstance(retention, str) else retention


class Watch(Construct):
    """The log groups, the alarms and the dashboard of one endpoint; none of them depends on it."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        monitoring: Monitoring,
        endpoint_name: str,
        hosting: Hosting,
        parts: Sequence[ServedPart],
        key: kms.IKey | None = None,
    ) -> None:
        """Monitor the parts of an endpoint. Errors are counted only in logs of this project's server.

        :param key: The endpoint's key, for logs and a new topic that name none.
        """
        super().__init__(scope, construct_id)
        self._monitoring = monitoring
        watched = watched_parts(self, endpoint_name, hosting, parts)
        first, *others = watched
        groups = [f"{INSTANCES}/{endpoint_name}", *(f"{COPIES}/{part.name}" for part in others if part.component)]
        self._log_key = log_key(self, monitoring.log_key, key, groups)
        # If the group is missing at a container's first line, SageMaker creates it, and CloudFormation then cannot.
        self.log_group = self._log(self, f"{INSTANCES}/{endpoint_name}", counted_in=first.counted_in)
        self.component_logs: dict[str, logs.LogGroup] = {
            part.name: self._log(part.home, f"{COPIES}/{part.name}", counted_in=part.counted_in)
            for part in others
            if part.component is not None
        }
        """The log groups of components, by their names."""
        self.topic = self._topic(key)
        self.alarms: dict[str, cloudwatch.Alarm] = {}
        """The alarms by name; those of further variants as `VARIANT/NAME`, of components as `COMPONENT/NAME`."""
        for part in watched:
            self.alarms |= alarms_of(part, monitoring, self.topic)
        self.container_alarms: dict[str, cloudwatch.IAlarm] = {}
        """The alarms on metrics of this project's server, named like the others. They roll no update back."""
        for part in watched:
            self.container_alarms |= container_alarms_of(part, monitoring.container_alarms, self.topic)
        if monitoring.container_alarms and not self.container_alarms:
            raise OptionError(
                "monitoring.container_alarms",
                ", ".join(monitoring.container_alarms),
                "ask what this project's own server tells, and no container has it: leave them out",
            )
        shown = [*self.alarms.values(), *self.container_alarms.values()]
        self.dashboard = make_dashboard(self, watched, shown) if monitoring.dashboard else None

    def rollback_alarms(self, component: str = "") -> Sequence[cloudwatch.IAlarm]:
        """The alarms that roll back an update of the endpoint or of a component, at most as many as SageMaker takes."""
        names = [name for name in self.alarms if name.rpartition("/")[2] in ROLLBACK_ALARMS]
        return [self.alarms[name] for name in names if name.startswith(f"{component}/" if component else "")][:10]

    @property
    def of_use_with_endpoint(self) -> Sequence[IConstruct]:
        """The alarms and the dashboard, which are useful only while the endpoint exists."""
        dashboards = [self.dashboard] if self.dashboard else []
        return [*self.alarms.values(), *self.container_alarms.values(), *dashboards]

    def _topic(self, key: kms.IKey | None) -> sns.ITopic | None:
        if self._monitoring.alarm_topic != "new":
            return self._monitoring.alarm_topic
        from aws_cdk import aws_sns as sns

        own_key = topic_key(self, self._monitoring.topic_key, key)
        topic = sns.Topic(self, "Topic", enforce_ssl=True, master_key=own_key)
        topic.grant_publish(principals.cloudwatch(self))
        return topic

    def _log(self, home: Construct, name: str, *, counted_in: str | None) -> logs.LogGroup:
        """A log group, with metric filters that count errors in it where `counted_in` names a namespace."""
        group = logs.LogGroup(
            home,
            "Log",
            log_group_name=name,
            retention=retention_days(self._monitoring.log_retention),
            encryption_key=self._log_key,
            removal_policy=RemovalPolicy.DESTROY,
        )
        if counted_in is not None:
            for metric, code in COUNTED.items():
                logs.MetricFilter(
                    group,
                    metric,
                    log_group=group,
                    filter_pattern=logs.FilterPattern.string_value("$.code", "=", code),
                    metric_namespace=counted_in,
                    metric_name=metric,
                    metric_value="1",
                    default_value=0,
                )
        return group
