"""A product team's app: an endpoint on the platform's image, inside the platform's rules.

npx cdk deploy --app "python3 examples/platform/product.py"
"""

from aws_cdk import App, Stack

from extended_dlc import EcrImage, HuggingFaceEndpoint, PlatformDefaults, RealTime

app = App()
PlatformDefaults(instance_types=["ml.m5.*"], own_images=False, tags={"team": "search"}).apply(app)
stack = Stack(app, "Search")
image = EcrImage.from_parameter(stack, "Image", "/images/speech/inference/5.24.0/cpu")
HuggingFaceEndpoint(stack, "Bloom", model="bloom", image=image, hosting=RealTime(instance_type="ml.m5.xlarge"))
app.synth()
