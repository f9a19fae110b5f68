"""An asynchronous endpoint: large requests from S3, no instance while nobody asks, everything under a key of one's own.

npx cdk deploy --app "python3 examples/hosting/queued.py"
"""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from extended_dlc import Async, BacklogScaling, HubModel, HuggingFaceEndpoint, StockDlc


class Queued(cdk.Stack):
    """Whisper for recordings of any length, and the role that sends them."""

    def __init__(self, scope: cdk.App, construct_id: str, **kwargs: Any) -> None:
        """Define the key, the endpoint and its caller."""
        super().__init__(scope, construct_id, **kwargs)
        whisper = HuggingFaceEndpoint(
            self,
            "Whisper",
            endpoint_name="whisper-queued",
            model=HubModel("openai/whisper-base", revision="e37978b90ca9030d5170a5c07aadb050351a65bb"),
            image=StockDlc(transformers="4.51.3"),
            hosting=Async(
                scaling=BacklogScaling(maximum=3, backlog_per_instance=2),
                concurrency=1,
                error_topic="new",
                expire_days=7,
            ),
            encryption_key=kms.Key(self, "Key", enable_key_rotation=True),
        )
        whisper.grant_invoke(iam.Role(self, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com")))


if __name__ == "__main__":
    app = cdk.App()
    Queued(app, "Queued", env=cdk.Environment(region="us-east-1"))
    app.synth()
