"""Two models that share instances: copies follow the requests of each, and nothing runs while nobody asks.

npx cdk deploy --app "python3 examples/hosting/components.py"
"""

from typing import Any

import aws_cdk as cdk

from extended_dlc import (
    Component,
    Components,
    CopyScaling,
    HubModel,
    HuggingFaceEndpoint,
    Monitoring,
    Rolling,
    StockDlc,
)


class Shared(cdk.Stack):
    """BLOOM and Whisper on none to two instances."""

    def __init__(self, scope: cdk.App, construct_id: str, **kwargs: Any) -> None:
        """Define the endpoint; callers say which model as `InferenceComponentName`."""
        super().__init__(scope, construct_id, **kwargs)
        scaling = CopyScaling(minimum=0, maximum=2, requests_per_second=2)
        whisper = HubModel("openai/whisper-base", revision="e37978b90ca9030d5170a5c07aadb050351a65bb")
        HuggingFaceEndpoint(
            self,
            "Shared",
            endpoint_name="shared",
            model=HubModel("bigscience/bloom-560m", revision="ac2ae5fab2ce3f9f40dc79b5ca9f637430d24971"),
            image=StockDlc(transformers="4.51.3"),
            hosting=Components(
                instance_type="ml.m5.2xlarge",
                minimum=0,
                maximum=2,
                components=[
                    Component(name="shared-bloom", memory_mb=8192, scaling=scaling),
                    Component(name="shared-whisper", memory_mb=4096, cpu_cores=2, model=whisper, scaling=scaling),
                ],
            ),
            rollout=Rolling(percent=50),  # the alarms of `monitoring` roll it back
            monitoring=Monitoring(),
        )


if __name__ == "__main__":
    app = cdk.App()
    Shared(app, "Shared", env=cdk.Environment(region="us-east-1"))
    app.synth()
