"""The CDK app that the tests deploy: a repository, an image copy, a model, its configuration and an endpoint."""

from __future__ import annotations

import os
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from cdk_ecr_deployment import DockerImageName, ECRDeployment
from constructs import Construct


class Tiny(cdk.Stack):
    """The smallest stack with each resource type of an endpoint's stack."""

    def __init__(self, scope: Construct, construct_id: str, *, greeting: str, **kwargs: Any) -> None:
        super().__init__(scope, construct_id, **kwargs)
        repository = ecr.Repository(
            self, "Repository", removal_policy=cdk.RemovalPolicy.DESTROY, empty_on_delete=True, image_scan_on_push=True
        )
        s3.Bucket(self, "Bucket", removal_policy=cdk.RemovalPolicy.DESTROY, auto_delete_objects=True, enforce_ssl=True)
        if folder := os.environ.get("IMAGE_FOLDER"):
            asset = ecr_assets.DockerImageAsset(
                self, "Asset", directory=folder, platform=ecr_assets.Platform.LINUX_AMD64
            )
            source, tag = asset.image_uri, asset.asset_hash
        else:
            source, tag = os.environ["IMAGE"], "copied"
        uri = repository.repository_uri_for_tag(tag)
        copy = ECRDeployment(self, "Copy", src=DockerImageName(source), dest=DockerImageName(uri))
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"))
        repository.grant_pull(role)
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=uri,
                environment={"GREETING": greeting, "BEHAVIOUR": "crash" if greeting == "crash" else "serve"},
            ),
        )
        model.node.add_dependency(role, copy)
        config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    variant_name="AllTraffic",
                    model_name=model.attr_model_name,
                    instance_type="ml.g6.xlarge",
                    initial_instance_count=1,
                    initial_variant_weight=1,
                    container_startup_health_check_timeout_in_seconds=120,
                )
            ],
        )
        endpoint = sagemaker.CfnEndpoint(
            self, "Endpoint", endpoint_name="tiny", endpoint_config_name=config.attr_endpoint_config_name
        )
        cdk.CfnOutput(self, "Name", value=endpoint.attr_endpoint_name)
        cdk.CfnOutput(self, "Uri", value=repository.repository_uri)


app = cdk.App()
Tiny(
    app,
    "Tiny",
    greeting=os.environ.get("GREETING", "hello"),
    env=cdk.Environment(account="123456789012", region="us-east-1"),
)
app.synth()
