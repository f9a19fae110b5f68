"""The shipped deployment by hand: no settings, no checks, no facts. What `benchmarks/synth.py` compares with."""

import base64

import aws_cdk as cdk
import cdk_ecr_deployment as ecr_deployment
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as assets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

BASE = (
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-inference:"
    "2.6.0-transformers5.5.3-cpu-py312-ubuntu22.04"
)
NAME = "extended-dlc-model"

app = cdk.App()
stack = cdk.Stack(
    app,
    "EndpointStack",
    stack_name="extended-dlc",
    env=cdk.Environment(region="us-east-1"),
    description="A Hugging Face Hub model behind a SageMaker endpoint, on an extended Deep Learning Container",
)

image = Construct(stack, "Image")
repository = ecr.Repository(
    image,
    "Repository",
    image_scan_on_push=True,
    image_tag_mutability=ecr.TagMutability.MUTABLE,
    removal_policy=cdk.RemovalPolicy.DESTROY,
    empty_on_delete=True,
    lifecycle_rules=[
        ecr.LifecycleRule(
            description="what lost its tag is no longer deployed",
            tag_status=ecr.TagStatus.UNTAGGED,
            max_image_age=cdk.Duration.days(14),
        )
    ],
)
asset = assets.DockerImageAsset(
    image,
    "Asset",
    directory="docker/inference",
    build_args={"BASE_IMAGE": BASE, "TRANSFORMERS_VERSION": "5.24.0", "REBUILD": "2026-11"},
    outputs=["type=docker,oci-mediatypes=false"],
    platform=assets.Platform.LINUX_AMD64,
    invalidation=assets.DockerImageAssetInvalidationOptions(build_secrets=False, outputs=False),
)
uri = repository.repository_uri_for_tag(asset.asset_hash)
copy_role = iam.Role(
    stack,
    "ImageCopyRole",
    assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
    description="Copies extended images from the asset repository into their own",
)
copy_log = cdk.CfnResource(stack, "ImageCopyLog", type="AWS::Logs::LogGroup", properties={"RetentionInDays": 30})
copy_log.apply_removal_policy(cdk.RemovalPolicy.DESTROY)
copy_role.add_to_policy(
    iam.PolicyStatement(
        actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[copy_log.get_att("Arn").to_string()]
    )
)
asset.repository.grant_pull(copy_role)
repository.grant_pull_push(copy_role)
copy = ecr_deployment.ECRDeployment(
    image,
    "Copy",
    src=ecr_deployment.DockerImageName(asset.image_uri),
    dest=ecr_deployment.DockerImageName(uri),
    memory_limit=3008,
    role=copy_role.without_policy_updates(),
)
copy.node.add_dependency(copy_role)
for each in stack.node.children:
    if each.node.id.startswith("Custom::CDKECRDeployment"):
        each.node.try_remove_child("LogGroup")
        each.node.default_child.add_property_override("LoggingConfig", {"LogGroup": copy_log.ref})
cdk.CfnOutput(stack, "ImageUri", value=uri, description="The extended image")

bloom = Construct(stack, "model")
role = iam.Role(
    bloom,
    "Role",
    assumed_by=iam.ServicePrincipal(
        "sagemaker.amazonaws.com",
        conditions={"ArnLike": {"aws:SourceArn": f"arn:aws:sagemaker:us-east-1:{cdk.Aws.ACCOUNT_ID}:*"}},
    ),
    description=f"What the containers of {NAME} may do",
)
repository.grant_pull(role)
log_group = stack.format_arn(
    service="logs",
    resource="log-group",
    resource_name=f"/aws/sagemaker/Endpoints/{NAME}",
    arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
)
role.add_to_policy(
    iam.PolicyStatement(
        actions=["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
        resources=[log_group, f"{log_group}:*"],
    )
)
role.add_to_policy(
    iam.PolicyStatement(
        actions=["cloudwatch:PutMetricData"],
        resources=["*"],
        conditions={"StringEquals": {"cloudwatch:namespace": ["/aws/sagemaker/Endpoints", "AWS/SageMaker"]}},
    )
)
prover = Construct(stack, "ExtendedDlcProver")
prover_log = logs.LogGroup(
    prover, "Log", retention=logs.RetentionDays.ONE_MONTH, removal_policy=cdk.RemovalPolicy.DESTROY
)
prover_role = iam.Role(prover, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
prover_log.grant_write(prover_role)
prover_role.add_to_policy(iam.PolicyStatement(actions=["cloudformation:DescribeStacks"], resources=[stack.stack_id]))
function = lambda_.Function(
    prover,
    "Function",
    description="Checks images and configurations, and asks endpoints until they answer",
    runtime=lambda_.Runtime("python3.14", lambda_.RuntimeFamily.PYTHON, supports_inline_code=True),
    code=lambda_.Code.from_asset("extended_dlc/programs/functions", exclude=["__pycache__"]),
    handler="proof.handle",
    timeout=cdk.Duration.minutes(15),
    role=prover_role.without_policy_updates(),
    log_group=prover_log,
)
repository.grant_pull(prover_role)
image_check = cdk.CustomResource(
    bloom,
    "ImageCheck",
    service_token=function.function_arn,
    resource_type="Custom::ExtendedDlcProof",
    properties={"Check": "image", "Image": uri, "Architecture": "amd64"},
)
image_check.node.add_dependency(prover_role, copy)
model = sagemaker.CfnModel(
    bloom,
    "Model",
    execution_role_arn=role.role_arn,
    primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
        image=uri,
        environment={
            "HF_MODEL_ID": "bigscience/bloom-560m",
            "HF_MODEL_REVISION": "ac2ae5fab2ce3f9f40dc79b5ca9f637430d24971",
        },
    ),
)
model.node.add_dependency(copy, role, image_check)
config = sagemaker.CfnEndpointConfig(
    bloom,
    "Config",
    production_variants=[
        sagemaker.CfnEndpointConfig.ProductionVariantProperty(
            variant_name="AllTraffic",
            model_name=model.attr_model_name,
            instance_type="ml.m5.xlarge",
            initial_instance_count=1,
            initial_variant_weight=1,
            container_startup_health_check_timeout_in_seconds=660,
            volume_size_in_gb=32,
        )
    ],
)
endpoint = sagemaker.CfnEndpoint(
    bloom, "Endpoint", endpoint_name=NAME, endpoint_config_name=config.attr_endpoint_config_name
)
endpoint_arn = f"arn:aws:sagemaker:us-east-1:{cdk.Aws.ACCOUNT_ID}:endpoint/{NAME}"
for actions, resources in (
    (
        [
            "sagemaker:InvokeEndpoint",
            "sagemaker:InvokeEndpointAsync",
            "sagemaker:InvokeEndpointWithResponseStream",
        ],
        [endpoint_arn],
    ),
    (["sagemaker:DescribeEndpoint"], [endpoint_arn]),
    (["logs:DescribeLogStreams", "logs:GetLogEvents"], [log_group, f"{log_group}:*"]),
):
    prover_role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources))
go_on = iam.Policy(prover, "GoOn", roles=[prover_role])
go_on.add_statements(iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=[function.function_arn]))
check = cdk.CustomResource(
    bloom,
    "Check",
    service_token=function.function_arn,
    resource_type="Custom::ExtendedDlcProof",
    properties={
        "Check": "endpoint",
        "EndpointName": NAME,
        "ConfigName": config.attr_endpoint_config_name,
        "TimeoutMinutes": 30,
        "ContentType": "application/json",
        "Accept": "application/json",
        "Body": base64.b64encode(b'{"inputs": "Hello", "parameters": {"max_new_tokens": 8}}').decode(),
        "Variants": ["AllTraffic"],
    },
)
check.node.add_dependency(prover_role, go_on, endpoint)
cdk.CfnOutput(stack, "modelName", value=NAME, description="Endpoint of bigscience/bloom-560m")
cdk.CfnOutput(
    stack,
    "modelAsk",
    value=f'extended-dlc ask {NAME} "Hello, my name is" --region {stack.region}',
    description="Asks bigscience/bloom-560m",
)
cdk.CfnOutput(
    stack,
    "modelInvoke",
    value=f"aws sagemaker-runtime invoke-endpoint --region {stack.region} --endpoint-name {NAME} --content-type "
    'application/json --cli-binary-format raw-in-base64-out --body \'{"inputs": "Hello, my name is"}\' /dev/stdout',
    description="Sends bigscience/bloom-560m a request, by the AWS CLI 2",
)
cdk.CfnOutput(
    stack,
    "modelAwsCli1",
    value=f"aws sagemaker-runtime invoke-endpoint --region {stack.region} --endpoint-name {NAME} --content-type "
    'application/json --body \'{"inputs": "Hello, my name is"}\' /dev/stdout',
    description="Sends bigscience/bloom-560m a request, by the AWS CLI 1",
)
cdk.CfnOutput(
    stack,
    "modelOpenAIBaseUrl",
    value=f"https://runtime.sagemaker.us-east-1.{cdk.Aws.URL_SUFFIX}/endpoints/{NAME}/openai/v1",
    description="Base URL for clients of OpenAI, if bigscience/bloom-560m has a chat template: extended-dlc token",
)
app.synth()
