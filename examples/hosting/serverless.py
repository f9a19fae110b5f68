"""A serverless endpoint: billed by the request, with two containers that are always warm.

npx cdk deploy --app "python3 examples/hosting/serverless.py"
"""

from typing import Any

import aws_cdk as cdk

from extended_dlc import HubModel, HuggingFaceEndpoint, ProvisionedScaling, Serverless, StockDlc


class OnDemand(cdk.Stack):
    """A small classifier for traffic that comes and goes."""

    def __init__(self, scope: cdk.App, construct_id: str, **kwargs: Any) -> None:
        """Define the endpoint."""
        super().__init__(scope, construct_id, **kwargs)
        HuggingFaceEndpoint(
            self,
            "Sentiment",
            endpoint_name="sentiment",
            model=HubModel(
                "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
                revision="714eb0fa89d2f80546fda750413ed43d93601a13",
                model_type="distilbert",
            ),
            image=StockDlc(transformers="4.51.3"),
            hosting=Serverless(
                memory_mb=4096,
                max_concurrency=20,
                provisioned_concurrency=2,
                scaling=ProvisionedScaling(minimum=2, maximum=10),
            ),
        )


if __name__ == "__main__":
    app = cdk.App()
    OnDemand(app, "OnDemand", env=cdk.Environment(region="us-east-1"))
    app.synth()
