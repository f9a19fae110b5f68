"""Two ways to try another model: with a tenth of the requests, and with a copy of them whose answers nobody sees.

npx cdk deploy --app "python3 examples/hosting/variants.py"
"""

from typing import Any

import aws_cdk as cdk

from extended_dlc import HubModel, HuggingFaceEndpoint, RealTime, StockDlc, Variant

BASE = HubModel("openai/whisper-base", revision="e37978b90ca9030d5170a5c07aadb050351a65bb")
SMALL = HubModel("openai/whisper-small", revision="973afd24965f72e36ca33b3055d56a652f456b4d")


class Variants(cdk.Stack):
    """Whisper in two sizes, behind an endpoint each way."""

    def __init__(self, scope: cdk.App, construct_id: str, **kwargs: Any) -> None:
        """Define both endpoints."""
        super().__init__(scope, construct_id, **kwargs)
        image = StockDlc(transformers="4.51.3")
        HuggingFaceEndpoint(
            self,
            "Shared",
            endpoint_name="whisper-shared",
            model=BASE,
            image=image,
            hosting=RealTime(weight=9, variants=[Variant(name="Small", weight=1, model=SMALL)]),
        )
        HuggingFaceEndpoint(
            self,
            "Shadowed",
            endpoint_name="whisper-shadowed",
            model=BASE,
            image=image,
            hosting=RealTime(shadow=Variant(name="Small", model=SMALL, instance_type="ml.m5.2xlarge")),
        )


if __name__ == "__main__":
    app = cdk.App()
    Variants(app, "Variants", env=cdk.Environment(region="us-east-1"))
    app.synth()
