"""The constructs in a stack of one's own: an endpoint for a new model, beside the function that calls it.

With this package installed:

    npx cdk deploy --app "python3 examples/own_stack.py"
"""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from extended_dlc import ExtendedDlc, HubModel, HuggingFaceEndpoint, RealTime


class Speech(cdk.Stack):
    """Whisper and BLOOM on one image, for a service that a role stands for."""

    def __init__(self, scope: cdk.App, construct_id: str, *, env: cdk.Environment) -> None:
        """Define the image, the endpoints, and who may call them."""
        super().__init__(scope, construct_id, env=env)
        image = ExtendedDlc(self, "Image", transformers="5.24.0", model_types=["bloom", "whisper"])
        whisper = HuggingFaceEndpoint(
            self,
            "Whisper",
            model=HubModel("openai/whisper-base", task="automatic-speech-recognition"),
            image=image,
            hosting=RealTime(instance_type="ml.m5.xlarge"),
        )
        bloom = HuggingFaceEndpoint(self, "Bloom", model=HubModel("bigscience/bloom-560m"), image=image)

        caller = iam.Role(self, "Caller", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        whisper.grant_invoke(caller)
        bloom.grant_invoke(caller)


if __name__ == "__main__":
    app = cdk.App()
    Speech(app, "Speech", env=cdk.Environment(region="us-east-1"))
    app.synth()
