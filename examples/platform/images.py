"""The platform team's app: one GPU image and one CPU image, published for an organisation.

npx cdk deploy --app "python3 examples/platform/images.py"
"""

from aws_cdk import App, Environment

from extended_dlc import CloudBuild, ImageStack, ImageVersion, Readers, Rebuilds, ScanGate

app = App()
ImageStack(
    app,
    "Images",
    env=Environment(account="111111111111", region="us-east-1"),
    images={
        "text": ImageVersion(transformers="5.24.0", accelerator="gpu"),
        "speech": ImageVersion(transformers="5.24.0", accelerator="cpu"),
    },
    readers=Readers(accounts=["222222222222"], organisation="o-abcdefghij"),
    rebuilds=Rebuilds(schedule="rate(7 days)"),
    build=CloudBuild(gate=ScanGate(fail_on="CRITICAL")),
)
app.synth()
