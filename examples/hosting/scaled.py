"""An endpoint that follows its load, keeps office hours, and takes back an update that makes errors.

npx cdk deploy --app "python3 examples/hosting/scaled.py"
"""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from extended_dlc import (
    Canary,
    HubModel,
    HuggingFaceEndpoint,
    InvocationScaling,
    RealTime,
    ScheduledCapacity,
    StockDlc,
)


class Scaled(cdk.Stack):
    """BLOOM on one to four instances, of whichever of two types is to be had."""

    def __init__(self, scope: cdk.App, construct_id: str, **kwargs: Any) -> None:
        """Define the alarm, then the endpoint that it watches over."""
        super().__init__(scope, construct_id, **kwargs)
        name = "bloom-scaled"
        errors = cloudwatch.Metric(
            namespace="AWS/SageMaker",
            metric_name="Invocation5XXErrors",
            dimensions_map={"EndpointName": name, "VariantName": "AllTraffic"},
            statistic="Sum",
            period=cdk.Duration.minutes(1),
        )
        alarm = cloudwatch.Alarm(self, "Errors", metric=errors, threshold=1, evaluation_periods=1)
        HuggingFaceEndpoint(
            self,
            "Bloom",
            endpoint_name=name,
            model=HubModel("bigscience/bloom-560m", revision="ac2ae5fab2ce3f9f40dc79b5ca9f637430d24971"),
            image=StockDlc(transformers="4.51.3"),
            hosting=RealTime(
                instance_type=["ml.m5.xlarge", "ml.m5.2xlarge"],
                routing="least-outstanding-requests",
                scaling=InvocationScaling(
                    maximum=4,
                    requests_per_second=2,
                    schedules=[
                        ScheduledCapacity(schedule="cron(0 8 ? * MON-FRI *)", minimum=2, timezone="Europe/Berlin"),
                        ScheduledCapacity(schedule="cron(0 18 ? * MON-FRI *)", minimum=1, timezone="Europe/Berlin"),
                    ],
                ),
            ),
            rollout=Canary(percent=10, bake_seconds=600, alarms=[alarm]),
        )


if __name__ == "__main__":
    app = cdk.App()
    Scaled(app, "Scaled", env=cdk.Environment(region="us-east-1"))
    app.synth()
