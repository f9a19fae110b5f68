"""An endpoint without internet: weights from S3, a VPC with private access only, what it answers kept for a week.

npx cdk deploy --app "python3 examples/hosting/private.py"
"""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from extended_dlc import (
    DataCapture,
    Functions,
    HuggingFaceEndpoint,
    Network,
    PlatformDefaults,
    PrivateAccess,
    RealTime,
    S3Model,
    StockDlc,
)


class Private(cdk.Stack):
    """A model of one's own, with the path and the boundary that the company wants on every role."""

    def __init__(self, scope: cdk.App, construct_id: str, **kwargs: Any) -> None:
        """Define the network, then the endpoint in it."""
        super().__init__(scope, construct_id, **kwargs)
        vpc = ec2.Vpc(
            self,
            "Vpc",
            max_azs=2,
            restrict_default_security_group=False,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24)
            ],
        )
        services = ["sagemaker.runtime", "logs", "ecr.api", "ecr.dkr"]
        PrivateAccess(self, "Access", vpc=vpc, services=services, functions=True)
        # the function that proves the deployment is in the VPC, too
        PlatformDefaults(functions=Functions(network=Network(vpc=vpc), reserved_concurrency=2)).apply(self)
        HuggingFaceEndpoint(
            self,
            "Own",
            endpoint_name="own",
            model=S3Model(s3.Bucket.from_bucket_name(self, "Weights", "weights"), "bloom/"),
            image=StockDlc(transformers="4.51.3"),
            hosting=RealTime(volume_gb=100, download_timeout_seconds=1200),
            network=Network(vpc=vpc),
            network_isolation=True,
            encryption_key=kms.Key(self, "Key", enable_key_rotation=True),
            data_capture=DataCapture(sampling_percent=20, expire_days=7),
            role_path="/models/",
            permissions_boundary=iam.ManagedPolicy.from_managed_policy_name(self, "Boundary", "models"),
        )


if __name__ == "__main__":
    app = cdk.App()
    Private(app, "Private", env=cdk.Environment(region="us-east-1"))
    app.synth()
