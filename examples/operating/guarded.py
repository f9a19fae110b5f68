"""An endpoint that is watched, proved after each deployment, and there in office hours only.

npx cdk deploy --app "python3 examples/operating/guarded.py"

To turn it off or on by hand: find the parameter whose name begins with `BloomSwitchEnabled` in the stack, and
npx cdk deploy --app "python3 examples/operating/guarded.py" --parameters NAME=false
"""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_logs as logs

from extended_dlc import (
    Canary,
    HubModel,
    HuggingFaceEndpoint,
    InvocationScaling,
    Monitoring,
    OfficeHours,
    Proof,
    RealTime,
    StockDlc,
)


class Guarded(cdk.Stack):
    """One endpoint with everything that looks after it."""

    def __init__(self, scope: cdk.App, construct_id: str, **kwargs: Any) -> None:
        """Define the endpoint."""
        super().__init__(scope, construct_id, **kwargs)
        HuggingFaceEndpoint(
            self,
            "Bloom",
            endpoint_name="bloom-guarded",
            model=HubModel("bigscience/bloom-560m", revision="ac2ae5fab2ce3f9f40dc79b5ca9f637430d24971"),
            image=StockDlc(transformers="4.51.3"),
            hosting=RealTime(
                instance_type="ml.m5.xlarge",
                instances=2,  # a canary of one instance would be all of it
                scaling=InvocationScaling(minimum=2, maximum=4, requests_per_second=2),
            ),
            # no alarms are named here: those of `monitoring` roll a bad update back
            rollout=Canary(percent=10),
            monitoring=Monitoring(
                alarms={"model-latency": 10, "disk": None},
                alarm_topic="new",
                log_retention=logs.RetentionDays.ONE_WEEK,
            ),
            verify=Proof(request={"inputs": "Hello"}, expect="generated_text"),
            schedule=OfficeHours(start="07:45", end="18:00", timezone="Europe/Berlin"),
        )


if __name__ == "__main__":
    app = cdk.App()
    Guarded(app, "Guarded", env=cdk.Environment(region="us-east-1"))
    app.synth()
