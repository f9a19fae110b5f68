"""An endpoint among other constructs of the CDK: an API, a state machine, events, alarms, another region and account.

npx cdk deploy --all --app "python3 examples/citizen.py" -c account=111111111111 -c another=222222222222

The rehearsal deploys to one account, and knows no stages of API Gateway: extended-dlc rehearse with
--app "python3 examples/citizen.py" --ignore AWS::ApiGateway::Stage -c account=123456789012 -c another=123456789012
"""

from typing import cast

import aws_cdk as cdk
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_ssm as ssm
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from extended_dlc import ExtendedDlc, HuggingFaceEndpoint, InvokableEndpoint, Monitoring, Network, RealTime


class Stage(cdk.Stack):
    """What another team says to this one through Systems Manager: which stage of development this is."""

    def __init__(self, scope: Construct, construct_id: str, *, env: cdk.Environment) -> None:
        """Define the parameter."""
        super().__init__(scope, construct_id, env=env)
        ssm.StringParameter(self, "Stage", parameter_name="/speech/stage", string_value="test")


class Serving(cdk.Stack):
    """The endpoint, whose name, type and number of instances are known to CloudFormation alone."""

    def __init__(self, scope: Construct, construct_id: str, *, env: cdk.Environment) -> None:
        """Define the endpoint and who is in touch with it."""
        super().__init__(scope, construct_id, env=env)
        vpc = ec2.Vpc(self, "Vpc", max_azs=2, nat_gateways=1)
        count = cdk.CfnParameter(self, "Count", type="Number", default=2)
        self.image = ExtendedDlc(self, "Image", transformers="5.24.0", accelerator="gpu", immutable_tags=True)
        self.endpoint = HuggingFaceEndpoint(
            self,
            "Bloom",
            model="bigscience/bloom-560m",
            image=self.image,
            endpoint_name=f"bloom-{ssm.StringParameter.value_for_string_parameter(self, '/speech/stage')}",
            hosting=RealTime(
                instance_type=ec2.InstanceType.of(ec2.InstanceClass.G5, ec2.InstanceSize.XLARGE),
                # a number of CloudFormation's is a float to Python until it is deployed
                instances=cast(int, count.value_as_number),
            ),
            network=Network(vpc=vpc),
            monitoring=Monitoring(),
        )
        cdk.CfnOutput(self, "Name", value=self.endpoint.endpoint_name, export_name="EndpointName")
        # the security group that the containers got is the other side of any other construct's connections
        self.endpoint.connections.allow_to(ec2.Peer.ipv4("10.1.0.0/16"), ec2.Port.tcp(443))
        proxy = ec2.SecurityGroup(self, "Proxy", vpc=vpc)
        proxy.connections.allow_from(self.endpoint, ec2.Port.tcp(3128))
        # the containers' role is a principal
        s3.Bucket(self, "Words", enforce_ssl=True).grant_read(self.endpoint)


class Callers(cdk.Stack):
    """Who uses the endpoint, from whichever stack, region and account it is in."""

    def __init__(
        self, scope: Construct, construct_id: str, *, endpoint: sagemaker.IEndpoint, env: cdk.Environment
    ) -> None:
        """Define an API, a state machine and a rule on what happens to the endpoint."""
        super().__init__(scope, construct_id, env=env)
        api = apigateway.RestApi(self, "Api", cloud_watch_role=False)
        api.root.add_method("POST", apigateway.SagemakerIntegration(endpoint))
        ask = tasks.CallAwsService(
            self,
            "Ask",
            service="sagemakerruntime",
            action="invokeEndpoint",
            parameters={"EndpointName": endpoint.endpoint_name, "Body.$": "$", "ContentType": "application/json"},
            iam_action="sagemaker:InvokeEndpoint",
            iam_resources=[endpoint.endpoint_arn],
        )
        # SageMakerUpdateEndpoint lowercases the name, which spoils a token's text; the service's call takes it as it is
        update = tasks.CallAwsService(
            self,
            "Update",
            service="sagemaker",
            action="updateEndpoint",
            parameters={"EndpointName": endpoint.endpoint_name, "EndpointConfigName.$": "$.config"},
            iam_resources=[endpoint.endpoint_arn],
        )
        machine = sfn.StateMachine(self, "Machine", definition_body=sfn.DefinitionBody.from_chainable(ask.next(update)))
        events.Rule(
            self,
            "Changed",
            event_pattern=events.EventPattern(source=["aws.sagemaker"], resources=[endpoint.endpoint_arn]),
            targets=[
                targets.SfnStateMachine(machine),
                targets.AwsApi(
                    service="SageMaker",
                    action="describeEndpoint",
                    parameters={"EndpointName": endpoint.endpoint_name},
                    policy_statement=iam.PolicyStatement(
                        actions=["sagemaker:DescribeEndpoint"], resources=[endpoint.endpoint_arn]
                    ),
                ),
            ],
        )


class Operators(cdk.Stack):
    """People who may do one thing each, and an alarm of their own."""

    def __init__(self, scope: Construct, construct_id: str, *, serving: Serving, env: cdk.Environment) -> None:
        """Define the roles and the alarm."""
        super().__init__(scope, construct_id, env=env)
        endpoint = serving.endpoint
        someone = iam.Role(self, "Someone", assumed_by=iam.AccountRootPrincipal())
        endpoint.grant_invoke(someone)
        endpoint.grant_describe(someone)
        endpoint.grant_read_logs(someone)
        endpoint.grant_update_weights_and_capacities(someone)
        slowly = cloudwatch.MetricOptions(period=cdk.Duration.minutes(5), statistic="p90")
        cloudwatch.Alarm(
            self,
            "Busy",
            metric=endpoint.metric_gpu_utilization(options=slowly),
            threshold=90,
            evaluation_periods=3,
        )


def build(app: cdk.App) -> None:
    """Define the stacks."""
    account = app.node.try_get_context("account") or "111111111111"
    another = app.node.try_get_context("another") or "222222222222"
    here = cdk.Environment(account=account, region="us-east-1")
    serving = Serving(app, "Serving", env=here)
    serving.node.add_dependency(Stage(app, "Stage", env=here))
    Operators(app, "Operators", serving=serving, env=here)
    Callers(app, "Callers", endpoint=serving.endpoint, env=here)
    # SageMaker pulls an image from its own account and region: it is published beside each endpoint
    for name, env in {
        "Elsewhere": cdk.Environment(account=account, region="eu-west-1"),
        "Anothers": cdk.Environment(account=another, region="us-east-1"),
    }.items():
        stack = cdk.Stack(app, name, env=env)
        endpoint = HuggingFaceEndpoint(
            stack,
            "Bloom",
            model="bigscience/bloom-560m",
            image=serving.image,
            hosting=RealTime(instance_type="ml.g5.xlarge"),
            endpoint_name="bloom",
        )
        # called from the first region and account
        Callers(app, f"CallersOf{name}", endpoint=endpoint, env=here)
    imported = InvokableEndpoint.from_endpoint_attributes(
        serving,
        "Imported",
        endpoint_arn="arn:aws:sagemaker:eu-west-1:333333333333:endpoint/theirs",
        security_groups=[ec2.SecurityGroup.from_security_group_id(serving, "Group", "sg-0123")],
    )
    Callers(app, "CallersOfImported", endpoint=imported, env=here)
    named = InvokableEndpoint.from_endpoint_name(serving, "Named", cdk.Fn.import_value("EndpointName"))
    callers = Callers(app, "CallersOfNamed", endpoint=named, env=here)
    callers.node.add_dependency(serving)


if __name__ == "__main__":
    app = cdk.App()
    build(app)
    app.synth()
