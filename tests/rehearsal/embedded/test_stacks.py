"""CloudFormation through boto3: order, replacement, rollback and what deletion retains."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.embedded import ACCOUNT, OCI, REGION, Aws, Image, deploy, events, settled, uri, wait_for
from tests.support.endpoints import answer, image

Template = dict[str, Any]
PULL = {
    "Effect": "Allow",
    "Action": ["ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability", "ecr:Get*"],
    "Resource": "*",
}


INVOCATIONS = {"PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}}


def serving(aws: Aws, endpoint: str, **environment: str) -> Template:
    """A template with a role, a model, its configuration and an endpoint of the given name."""
    trusts = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "sagemaker.amazonaws.com"}}
    trust = {"Version": "2012-10-17", "Statement": [trusts]}
    return {
        "Resources": {
            # the endpoint comes first, so that only the references can give the order
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {
                    "EndpointName": endpoint,
                    "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                },
            },
            "Config": {
                "Type": "AWS::SageMaker::EndpointConfig",
                "Properties": {
                    "ProductionVariants": [
                        {
                            "VariantName": "AllTraffic",
                            "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
                            "InstanceType": "ml.g6.xlarge",
                            "InitialInstanceCount": "1",
                            "InitialVariantWeight": 1,
                        }
                    ]
                },
            },
            "Model": {
                "Type": "AWS::SageMaker::Model",
                "Properties": {
                    "ExecutionRoleArn": {"Fn::GetAtt": ["Role", "Arn"]},
                    "PrimaryContainer": {"Image": image(aws, "served"), "Environment": environment},
                    "EnableNetworkIsolation": "true",
                },
            },
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": trust,
                    "Policies": [{"PolicyName": "Pull", "PolicyDocument": {**trust, "Statement": [PULL]}}],
                },
            },
        },
        "Outputs": {"Model": {"Value": {"Ref": "Model"}}, "Region": {"Value": {"Ref": "AWS::Region"}}},
    }


def outputs(stack: dict[str, Any]) -> dict[str, str]:
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", ())}


def physical(aws: Aws, stack: str) -> dict[str, str]:
    resources = aws.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}


def test_resources_are_made_in_the_order_of_their_references(aws: Aws) -> None:
    stack = deploy(aws, "ordered", serving(aws, "ordered"))
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    statuses = [(name, status) for name, status, _ in events(aws, "ordered")]
    made = [name for name, status in statuses if status == "CREATE_COMPLETE"]
    assert made == ["Role", "Model", "Config", "Endpoint", "ordered"]
    assert statuses[:2] == [("ordered", "CREATE_IN_PROGRESS"), ("Role", "CREATE_IN_PROGRESS")]
    assert outputs(stack)["Model"].startswith(f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/ordered-Model-")
    variant = aws.client("sagemaker").describe_endpoint(EndpointName="ordered")["ProductionVariants"][0]
    assert variant["CurrentInstanceCount"] == 1
    name = outputs(stack)["Model"].rsplit("/", 1)[1]
    assert aws.client("sagemaker").describe_model(ModelName=name)["EnableNetworkIsolation"] is True


def test_a_new_model_is_served_under_the_same_endpoint_and_the_old_one_is_deleted(aws: Aws) -> None:
    deploy(aws, "replaced", serving(aws, "replaced", GREETING="a"))
    before = physical(aws, "replaced")
    stack = deploy(aws, "replaced", serving(aws, "replaced", GREETING="b"), update=True)
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    after = physical(aws, "replaced")
    assert before["Endpoint"] == after["Endpoint"]
    assert before["Role"] == after["Role"]
    for gone in ("Model", "Config"):
        assert before[gone] != after[gone]
    assert outputs(stack)["Model"] == after["Model"]
    assert answer(aws, "replaced").startswith("b ")
    names = {each.rsplit("/", 1)[1] for each in (before["Model"], before["Config"])}
    assert not names & {*aws.left()["models"], *aws.left()["endpoint-configs"]}
    statuses = [(name, status) for name, status, _ in events(aws, "replaced")]
    served = len(statuses) - 1 - statuses[::-1].index(("Endpoint", "UPDATE_COMPLETE"))
    assert statuses.index(("Config", "DELETE_IN_PROGRESS")) > served
    assert statuses.index(("Model", "DELETE_IN_PROGRESS")) > statuses.index(("Config", "DELETE_COMPLETE"))
    # A, B, A: the first model's physical name is not used again
    deploy(aws, "replaced", serving(aws, "replaced", GREETING="a"), update=True)
    assert answer(aws, "replaced").startswith("a ")
    assert physical(aws, "replaced")["Model"] not in (before["Model"], after["Model"])


def test_a_failed_update_puts_the_previous_template_in_force(aws: Aws) -> None:
    deploy(aws, "rolled-back", serving(aws, "rolled-back", GREETING="good"))
    before = physical(aws, "rolled-back")
    bad = serving(aws, "rolled-back", BEHAVIOUR="crash")
    bad["Resources"]["Extra"] = {"Type": "AWS::S3::Bucket"}
    stack = deploy(aws, "rolled-back", bad, update=True)
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert physical(aws, "rolled-back") == before
    assert answer(aws, "rolled-back").startswith("good ")
    [(name, reason)] = [
        (name, reason) for name, status, reason in events(aws, "rolled-back") if status == "UPDATE_FAILED"
    ]
    assert name == "Endpoint"
    assert "did not pass the ping health check" in reason
    assert "out of luck" in reason
    left = aws.left()
    assert sum(each.startswith("rolled-back-Model-") for each in left["models"]) == 1
    assert not [each for each in left["buckets"] if each.startswith("rolled-back")]
    template = aws.client("cloudformation").get_template(StackName="rolled-back")["TemplateBody"]
    assert "Extra" not in json.loads(template if isinstance(template, str) else json.dumps(template))["Resources"]
    # the next valid update succeeds
    assert deploy(aws, "rolled-back", serving(aws, "rolled-back", GREETING="new"), update=True)["StackStatus"] == (
        "UPDATE_COMPLETE"
    )
    assert answer(aws, "rolled-back").startswith("new ")


def test_a_failed_create_leaves_nothing_but_its_reason(aws: Aws) -> None:
    stack = deploy(aws, "failed", serving(aws, "failed", BEHAVIOUR="crash"))
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    left = aws.left()
    assert not [each for kind in left.values() for each in kind if each.startswith("failed-")]
    assert "failed" not in left["endpoints"]
    failures = [name for name, status, _ in events(aws, "failed") if status == "CREATE_FAILED"]
    assert failures == ["Endpoint"]
    with pytest.raises(ClientError, match="ROLLBACK_COMPLETE state and can not be updated"):
        deploy(aws, "failed", serving(aws, "failed"), update=True)
    aws.client("cloudformation").delete_stack(StackName="failed")
    assert deploy(aws, "failed", serving(aws, "failed"))["StackStatus"] == "CREATE_COMPLETE"


def test_a_model_with_an_absent_image_fails_its_stack_with_sagemakers_words(aws: Aws) -> None:
    template = serving(aws, "no-image")
    absent = uri("served", "no-such-tag")
    template["Resources"]["Model"]["Properties"]["PrimaryContainer"]["Image"] = absent
    assert deploy(aws, "no-image", template)["StackStatus"] == "ROLLBACK_COMPLETE"
    reasons = {name: reason for name, status, reason in events(aws, "no-image") if status == "CREATE_FAILED"}
    assert list(reasons) == ["Model"]
    assert f"Requested image {absent} not found." in reasons["Model"]


def test_a_model_before_its_role_s_policy_is_refused(aws: Aws) -> None:
    late = serving(aws, "late-policy")
    late["Resources"]["Role"]["Properties"].pop("Policies")
    document = {"Version": "2012-10-17", "Statement": [PULL]}
    late["Resources"]["Policy"] = {
        "Type": "AWS::IAM::Policy",
        "Properties": {"PolicyName": "Pull", "PolicyDocument": document, "Roles": [{"Ref": "Role"}]},
    }
    assert deploy(aws, "late-policy", late)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("does not have BatchGetImage permission for the image" in why for *_, why in events(aws, "late-policy"))
    late["Resources"]["Model"]["DependsOn"] = "Policy"
    assert deploy(aws, "policy-first", late)["StackStatus"] == "CREATE_COMPLETE"


def test_a_call_returns_while_resources_are_being_made(aws: Aws) -> None:
    client = aws.client("cloudformation")
    client.create_stack(StackName="slow", TemplateBody=json.dumps(serving(aws, "slow", LOADING="8")), **ACKNOWLEDGED)
    assert client.describe_stacks(StackName="slow")["Stacks"][0]["StackStatus"] == "CREATE_IN_PROGRESS"
    assert ("Endpoint", "CREATE_IN_PROGRESS", "") in events(aws, "slow")
    with pytest.raises(ClientError, match="CREATE_IN_PROGRESS state and can not be updated"):
        client.update_stack(StackName="slow", TemplateBody="{}")
    with pytest.raises(ClientError, match="already exists"):
        client.create_stack(StackName="slow", TemplateBody=json.dumps(serving(aws, "slow")), **ACKNOWLEDGED)
    assert settled(aws, "slow")["StackStatus"] == "CREATE_COMPLETE"


def test_a_custom_name_that_would_need_replacing_is_refused(aws: Aws) -> None:
    template = serving(aws, "custom-name", GREETING="a")
    template["Resources"]["Model"]["Properties"]["ModelName"] = "my-model"
    deploy(aws, "custom-name", template)
    assert aws.client("sagemaker").describe_model(ModelName="my-model")["ModelName"] == "my-model"
    template["Resources"]["Model"]["Properties"]["PrimaryContainer"]["Environment"] = {"GREETING": "b"}
    assert deploy(aws, "custom-name", template, update=True)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert any(
        "cannot update a stack when a custom-named resource" in each for _, _, each in events(aws, "custom-name")
    )


def repository(name: str, **options: Any) -> Template:
    return {
        "Type": "AWS::ECR::Repository",
        "Properties": {"RepositoryName": name, **{k: v for k, v in options.items() if not k.endswith("Policy")}},
        **{k: v for k, v in options.items() if k in ("DeletionPolicy", "UpdateReplacePolicy")},
    }


def test_a_repository_keeps_its_settings_and_its_uri_is_awss(aws: Aws) -> None:
    untagged = {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 5}
    rule = {"rulePriority": 1, "selection": untagged, "action": {"type": "expire"}}
    lifecycle = {"LifecyclePolicyText": json.dumps({"rules": [rule]})}
    template: Template = {
        "Resources": {
            "Repo": {
                "Type": "AWS::ECR::Repository",
                "Properties": {
                    "ImageScanningConfiguration": {"ScanOnPush": True},
                    "ImageTagMutability": "IMMUTABLE",
                    "LifecyclePolicy": lifecycle,
                    "RepositoryPolicyText": {"Version": "2012-10-17", "Statement": []},
                },
            }
        },
        "Outputs": {"Uri": {"Value": {"Fn::GetAtt": ["Repo", "RepositoryUri"]}}, "Name": {"Value": {"Ref": "Repo"}}},
    }
    values = outputs(deploy(aws, "repository", template))
    assert values["Uri"] == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{values['Name']}"
    ecr = aws.client("ecr")
    described = ecr.describe_repositories(repositoryNames=[values["Name"]])["repositories"][0]
    assert described["imageScanningConfiguration"] == {"scanOnPush": True}
    assert described["imageTagMutability"] == "IMMUTABLE"
    assert (
        ecr.get_lifecycle_policy(repositoryName=values["Name"])["lifecyclePolicyText"]
        == lifecycle["LifecyclePolicyText"]
    )
    Image("kept").push(aws, values["Name"], "v1")
    template["Resources"]["Repo"]["Properties"]["ImageTagMutability"] = "MUTABLE"
    assert outputs(deploy(aws, "repository", template, update=True)) == values
    assert ecr.describe_images(repositoryName=values["Name"])["imageDetails"][0]["imageTags"] == ["v1"]


def test_deletion_empties_what_says_so_keeps_what_says_so_and_fails_on_the_rest(aws: Aws) -> None:
    resources = {
        "Emptied": repository("del-emptied", EmptyOnDelete=True),
        "Full": repository("del-full"),
        "Kept": repository("del-kept", DeletionPolicy="Retain"),
    }
    deploy(aws, "deletion", {"Resources": resources})
    for name in ("del-emptied", "del-full", "del-kept"):
        Image(name).push(aws, name, "v1")
    client = aws.client("cloudformation")
    client.delete_stack(StackName="deletion")
    assert settled(aws, "deletion")["StackStatus"] == "DELETE_FAILED"
    statuses = [(name, status) for name, status, _ in events(aws, "deletion")]
    assert ("Emptied", "DELETE_COMPLETE") in statuses
    assert ("Kept", "DELETE_SKIPPED") in statuses
    assert any("cannot be deleted because it still contains images" in each for *_, each in events(aws, "deletion"))
    assert {"del-full", "del-kept"} <= set(aws.left()["repositories"])
    aws.client("ecr").batch_delete_image(repositoryName="del-full", imageIds=[{"imageTag": "v1"}])
    stack_id = client.describe_stacks(StackName="deletion")["Stacks"][0]["StackId"]
    client.delete_stack(StackName="deletion")
    assert client.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"] == "DELETE_COMPLETE"
    with pytest.raises(ClientError, match="deletion does not exist"):
        client.describe_stacks(StackName="deletion")
    assert {"del-emptied", "del-full", "del-kept"} & set(aws.left()["repositories"]) == {"del-kept"}


ACKNOWLEDGED = {"Capabilities": ["CAPABILITY_IAM"]}
"""Of a template with a role."""

GONE: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # type to properties, and the call that deletes the resource outside the stack, with the parameter for its name
    "AWS::CloudWatch::Alarm": (
        {
            "ComparisonOperator": "GreaterThanThreshold",
            "EvaluationPeriods": 1,
            "Namespace": "N",
            "MetricName": "M",
            "Period": 60,
            "Statistic": "Sum",
            "Threshold": 1,
        },
        *("cloudwatch", "delete_alarms", "AlarmNames"),
    ),
    "AWS::CloudWatch::Dashboard": ({"DashboardBody": "{}"}, "cloudwatch", "delete_dashboards", "DashboardNames"),
    "AWS::ECR::Repository": ({}, "ecr", "delete_repository", "repositoryName"),
    "AWS::IAM::Role": ({"AssumeRolePolicyDocument": {"Statement": []}}, "iam", "delete_role", "RoleName"),
    "AWS::Logs::LogGroup": ({}, "logs", "delete_log_group", "logGroupName"),
    "AWS::S3::Bucket": ({}, "s3", "delete_bucket", "Bucket"),
    "AWS::SNS::Topic": ({}, "sns", "delete_topic", "TopicArn"),
    "AWS::SecretsManager::Secret": ({"SecretString": "x"}, "secretsmanager", "delete_secret", "SecretId"),
    "AWS::Scheduler::Schedule": (
        {
            "ScheduleExpression": "rate(1 day)",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "Target": {"Arn": "arn:aws:sqs:::x", "RoleArn": "arn:aws:iam::123456789012:role/behind-schedule"},
        },
        *("scheduler", "delete_schedule", "Name"),
    ),
}


@pytest.mark.parametrize("kind", GONE)
def test_what_was_deleted_behind_a_stack_counts_as_deleted(aws: Aws, kind: str) -> None:
    if kind == "AWS::Scheduler::Schedule":
        aws.create_role("behind-schedule", "scheduler.amazonaws.com")
    properties, service, call, parameter = GONE[kind]
    stack = f"behind-{kind.rpartition(':')[2].lower()}"
    template = {"Resources": {"It": {"Type": kind, "Properties": properties}}}
    assert deploy(aws, stack, template)["StackStatus"] == "CREATE_COMPLETE"
    name = physical(aws, stack)["It"]
    getattr(aws.client(service), call)(**{parameter: [name] if parameter.endswith("s") else name})
    assert destroyed(aws, stack) == "DELETE_COMPLETE"


def test_an_endpoint_with_all_its_parts_that_went_behind_the_stack_counts_as_deleted(aws: Aws) -> None:
    template = serving(aws, "behind")
    template["Resources"] |= {
        "Target": {
            "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
            "DependsOn": "Endpoint",
            "Properties": {
                "ServiceNamespace": "sagemaker",
                "ResourceId": "endpoint/behind/variant/AllTraffic",
                "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
                "MinCapacity": 1,
                "MaxCapacity": 2,
            },
        },
        "Policy": {
            "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
            "Properties": {
                "PolicyName": "behind",
                "PolicyType": "TargetTrackingScaling",
                "ScalingTargetId": {"Ref": "Target"},
                "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 1, **INVOCATIONS},
            },
        },
    }
    assert deploy(aws, "behind", template)["StackStatus"] == "CREATE_COMPLETE", events(aws, "behind")
    names = physical(aws, "behind")
    scaled = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/behind/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling, sagemaker = aws.client("application-autoscaling"), aws.client("sagemaker")
    scaling.delete_scaling_policy(PolicyName="behind", **scaled)
    scaling.deregister_scalable_target(**scaled)
    sagemaker.delete_endpoint(EndpointName="behind")
    wait_for(lambda: "behind" not in aws.left()["endpoints"])
    sagemaker.delete_endpoint_config(EndpointConfigName=names["Config"].rpartition("/")[2])
    sagemaker.delete_model(ModelName=names["Model"].rpartition("/")[2])
    assert destroyed(aws, "behind") == "DELETE_COMPLETE"


def test_a_role_that_went_behind_the_stack_takes_its_policy_along(aws: Aws) -> None:
    document = {"Version": "2012-10-17", "Statement": [PULL]}
    policy = {"PolicyName": "Pull", "PolicyDocument": document, "Roles": [{"Ref": "Role"}]}
    trust = {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": []}}
    template = {
        "Resources": {
            "Role": {"Type": "AWS::IAM::Role", "Properties": trust},
            "Policy": {"Type": "AWS::IAM::Policy", "Properties": policy},
        }
    }
    assert deploy(aws, "behind-policy", template)["StackStatus"] == "CREATE_COMPLETE"
    role, iam = physical(aws, "behind-policy")["Role"], aws.client("iam")
    iam.delete_role_policy(RoleName=role, PolicyName="Pull")
    iam.delete_role(RoleName=role)
    assert destroyed(aws, "behind-policy") == "DELETE_COMPLETE"


def test_what_cannot_be_deleted_for_another_reason_still_fails_the_deletion(aws: Aws) -> None:
    deploy(aws, "behind-full", {"Resources": {"It": {"Type": "AWS::ECR::Repository"}}})
    Image("behind-full").push(aws, physical(aws, "behind-full")["It"], "v1")
    assert destroyed(aws, "behind-full") == "DELETE_FAILED"


def destroyed(aws: Aws, stack: str) -> str:
    """A stack's status after its deletion."""
    client = aws.client("cloudformation")
    (known,) = [each["StackId"] for each in client.describe_stacks(StackName=stack)["Stacks"]]
    client.delete_stack(StackName=stack)
    wait_for(lambda: not client.describe_stacks(StackName=known)["Stacks"][0]["StackStatus"].endswith("PROGRESS"))
    return str(client.describe_stacks(StackName=known)["Stacks"][0]["StackStatus"])


def copying(source: str, target: str) -> Template:
    properties = {
        "ServiceToken": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:copy",
        "SrcImage": f"docker://{source}",
        "DestImage": f"docker://{target}",
    }
    return {"Resources": {"Copy": {"Type": "Custom::CDKECRDeployment", "Properties": properties}}}


def test_an_image_is_copied_between_repositories(aws: Aws) -> None:
    source = image(aws, "copy-source")
    aws.client("ecr").create_repository(repositoryName="copy-target")
    stack = deploy(aws, "copy", copying(source, uri("copy-target", "t")))
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    copied = aws.request("GET", "/v2/copy-target/manifests/t")
    assert copied.body == Image("copy-source").manifest


def test_an_oci_manifest_stays_one_in_the_copy_and_fails_the_model_in_sagemakers_words(aws: Aws) -> None:
    """A current Docker pushes OCI manifests unless it is asked for its own media types."""
    for name in ("oci-asset", "oci-own"):
        aws.client("ecr").create_repository(repositoryName=name)
    Image("oci-asset", OCI).push(aws, "oci-asset", "hash")
    copied = uri("oci-own", "hash")
    template = serving(aws, "oci")
    template["Resources"] |= copying(uri("oci-asset", "hash"), copied)["Resources"]
    template["Resources"]["Model"]["Properties"]["PrimaryContainer"] = {"Image": copied}
    template["Resources"]["Model"]["DependsOn"] = "Copy"
    assert deploy(aws, "oci", template)["StackStatus"] == "ROLLBACK_COMPLETE"
    (detail,) = aws.client("ecr").describe_images(repositoryName="oci-own")["imageDetails"]
    assert detail["imageManifestMediaType"] == OCI
    (reason,) = [reason for name, status, reason in events(aws, "oci") if (name, status) == ("Model", "CREATE_FAILED")]
    assert f"Unsupported manifest media type {OCI} for image {copied}" in reason


def test_a_copy_to_an_immutable_tag_cannot_be_taken_back(aws: Aws) -> None:
    """As reported for cdk-ecr-deployment (its issue 207): the rollback pushes the old tag again, and that fails."""
    one, two = image(aws, "immutable-one"), image(aws, "immutable-two")
    aws.client("ecr").create_repository(repositoryName="immutable-copy", imageTagMutability="IMMUTABLE")
    first = copying(one, uri("immutable-copy", "one"))
    assert deploy(aws, "immutable-copy", first)["StackStatus"] == "CREATE_COMPLETE"
    second = copying(two, uri("immutable-copy", "two"))
    second["Resources"]["Broken"] = {
        "Type": "AWS::SageMaker::Model",
        "DependsOn": "Copy",
        "Properties": {"ExecutionRoleArn": "arn:x", "PrimaryContainer": {"Image": uri("immutable-copy", "absent")}},
    }
    assert deploy(aws, "immutable-copy", second, update=True)["StackStatus"] == "UPDATE_ROLLBACK_FAILED"
    reasons = [
        reason for name, status, reason in events(aws, "immutable-copy") if (name, status) == ("Copy", "UPDATE_FAILED")
    ]
    assert len(reasons) == 1
    assert "Received response status [FAILED] from custom resource" in reasons[0]
    assert "cannot be overwritten because the tag is immutable" in reasons[0]


def test_a_copy_of_an_absent_image_or_to_an_absent_repository_fails(aws: Aws) -> None:
    source = image(aws, "copy-absent")
    for name, template, reason in (
        ("copy-from-absent", copying(uri("copy-absent", "no"), uri("copy-absent", "x")), "manifest unknown"),
        ("copy-to-absent", copying(source, uri("copy-no-such", "x")), "'copy-no-such' does not exist"),
    ):
        assert deploy(aws, name, template)["StackStatus"] == "ROLLBACK_COMPLETE"
        assert any(reason in each for *_, each in events(aws, name))


def test_an_update_without_a_change_is_refused_and_a_change_set_of_it_fails(aws: Aws) -> None:
    template = {"Parameters": {"P": {"Type": "String", "Default": "x"}}, "Resources": {"R": repository("unchanged")}}
    deploy(aws, "unchanged", template)
    client = aws.client("cloudformation")
    with pytest.raises(ClientError, match="No updates are to be performed"):
        deploy(aws, "unchanged", template, update=True)
    client.create_change_set(
        StackName="unchanged",
        ChangeSetName="none",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": "P", "UsePreviousValue": True}],
    )
    described = client.describe_change_set(StackName="unchanged", ChangeSetName="none")
    assert described["Status"] == "FAILED"
    assert "didn't contain changes" in described["StatusReason"]


def test_a_parameter_of_the_store_is_read_again_at_each_update_and_a_reference_with_its_resource(aws: Aws) -> None:
    store, client = aws.client("ssm"), aws.client("cloudformation")
    typed = {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/moves/text"}
    model = serving(aws, "moves")["Resources"]
    model["Model"]["Properties"]["PrimaryContainer"]["Environment"] = {"TYPED": {"Ref": "Typed"}}
    described = {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "{{resolve:ssm:/moves/text}}"}}
    template = {
        "Parameters": {"Typed": typed},
        "Resources": {"Role": model["Role"], "Model": model["Model"], "Topic": described},
    }
    with pytest.raises(ClientError, match=r"Unable to fetch parameters \[/moves/text\] from parameter store"):
        deploy(aws, "moves", template)
    store.put_parameter(Name="/moves/text", Value="first", Type="String")
    stack = deploy(aws, "moves", template)
    assert stack["Parameters"] == [{"ParameterKey": "Typed", "ParameterValue": "/moves/text", "ResolvedValue": "first"}]
    first = physical(aws, "moves")
    parameters = [{"ParameterKey": "Typed", "UsePreviousValue": True}]
    kept: dict[str, Any] = {"StackName": "moves", "Parameters": parameters, **ACKNOWLEDGED}
    with pytest.raises(ClientError, match="No updates are to be performed"):
        client.update_stack(**kept, UsePreviousTemplate=True)

    def displayed() -> str:
        topic = aws.client("sns").get_topic_attributes(TopicArn=physical(aws, "moves")["Topic"])
        return str(topic["Attributes"]["DisplayName"])

    store.put_parameter(Name="/moves/text", Value="second", Type="String", Overwrite=True)
    client.create_change_set(**kept, ChangeSetName="moved", UsePreviousTemplate=True)
    (change,) = client.describe_change_set(StackName="moves", ChangeSetName="moved")["Changes"]
    assert change["ResourceChange"]["LogicalResourceId"] == "Model"
    assert {each["ChangeSource"] for each in change["ResourceChange"]["Details"]} == {"ParameterReference"}
    client.execute_change_set(StackName="moves", ChangeSetName="moved")
    assert settled(aws, "moves")["StackStatus"] == "UPDATE_COMPLETE"
    second = physical(aws, "moves")
    environment = aws.client("sagemaker").describe_model(ModelName=second["Model"].rsplit("/", 1)[1])
    assert environment["PrimaryContainer"]["Environment"] == {"TYPED": "second"}
    assert first["Model"] != second["Model"]
    assert displayed() == "second"
    # a reference alone is no change, because the template says the same
    del template["Parameters"], template["Resources"]["Model"]
    deploy(aws, "moves", template, update=True)
    store.put_parameter(Name="/moves/text", Value="third", Type="String", Overwrite=True)
    with pytest.raises(ClientError, match="No updates are to be performed"):
        deploy(aws, "moves", template, update=True)
    described["Properties"]["DisplayName"] += " and more"
    deploy(aws, "moves", template, update=True)
    assert displayed() == "third and more"


def test_a_change_set_tells_what_would_be_replaced_and_does_it_when_executed(aws: Aws) -> None:
    deploy(aws, "changing", serving(aws, "changing", GREETING="a"))
    client, new = aws.client("cloudformation"), serving(aws, "changing", GREETING="b")
    client.create_change_set(StackName="changing", ChangeSetName="b", TemplateBody=json.dumps(new), **ACKNOWLEDGED)
    described = client.describe_change_set(StackName="changing", ChangeSetName="b")
    changes = {
        each["ResourceChange"]["LogicalResourceId"]: each["ResourceChange"]["Replacement"]
        for each in described["Changes"]
    }
    assert changes == {"Model": "True", "Config": "Conditional", "Endpoint": "False"}
    assert answer(aws, "changing").startswith("a ")
    client.execute_change_set(StackName="changing", ChangeSetName="b")
    assert settled(aws, "changing")["StackStatus"] == "UPDATE_COMPLETE"
    assert answer(aws, "changing").startswith("b ")
    with pytest.raises(ClientError, match="ChangeSetNotFound"):
        client.describe_change_set(StackName="changing", ChangeSetName="b")
    client.delete_change_set(StackName="changing", ChangeSetName="b")


def test_a_change_set_that_was_never_executed_goes_with_its_stack(aws: Aws) -> None:
    """A deployment that is interrupted and started again: the CDK gives all its change sets the same name."""
    client = aws.client("cloudformation")
    said = {"StackName": "stopped", "ChangeSetName": "cdk-deploy-change-set"}
    asked = {**said, "ChangeSetType": "CREATE", "TemplateBody": json.dumps({"Resources": {"R": repository("begun")}})}
    first = client.create_change_set(**asked)["StackId"]
    client.delete_stack(StackName="stopped")
    with pytest.raises(ClientError, match="ChangeSetNotFound"):
        client.execute_change_set(**said)
    assert client.create_change_set(**asked)["StackId"] != first
    client.execute_change_set(**said)
    assert settled(aws, "stopped")["StackStatus"] == "CREATE_COMPLETE"
    client.delete_stack(StackName="stopped")
    assert "begun" not in {each["repositoryName"] for each in aws.client("ecr").describe_repositories()["repositories"]}


def test_exports_reach_other_stacks_and_end_with_theirs(aws: Aws) -> None:
    exporting = {
        "Resources": {"R": repository("exported")},
        "Outputs": {"O": {"Value": {"Ref": "R"}, "Export": {"Name": "shared-name"}}},
    }
    deploy(aws, "exporting", exporting)
    tags = {
        "Type": "AWS::SSM::Parameter",
        "Properties": {"Type": "String", "Value": {"Fn::ImportValue": "shared-name"}},
    }
    stack = deploy(
        aws, "importing", {"Resources": {"P": tags}, "Outputs": {"V": {"Value": {"Fn::GetAtt": ["P", "Value"]}}}}
    )
    assert outputs(stack) == {"V": "exported"}
    client = aws.client("cloudformation")
    client.delete_stack(StackName="exporting")
    assert settled(aws, "exporting")["StackStatus"] == "DELETE_FAILED"
    assert events(aws, "exporting")[-1][2] == "Export shared-name cannot be deleted as it is in use by importing"
    client.delete_stack(StackName="importing")
    client.delete_stack(StackName="exporting")
    assert "exporting" not in aws.left()["stacks"]
    other = {**tags, "Properties": {"Type": "String", "Value": {"Fn::ImportValue": "shared-name"}}}
    assert deploy(aws, "importing-late", {"Resources": {"P": other}})["StackStatus"] == "ROLLBACK_COMPLETE"
    assert any("No export named shared-name" in each for *_, each in events(aws, "importing-late"))


def test_a_stack_that_cannot_be_deleted_still_tells_its_outputs_and_exports(aws: Aws) -> None:
    topic = {"Type": "AWS::SNS::Topic", "Properties": {}}
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "not-empty-at-all"}}
    output = {"Value": {"Ref": "Topic"}, "Export": {"Name": "the-topic"}}
    template = {"Resources": {"Bucket": bucket, "Topic": topic}, "Outputs": {"Topic": output}}
    before = deploy(aws, "undeletable", template)["Outputs"]
    aws.client("s3").put_object(Bucket="not-empty-at-all", Key="x", Body=b"x")
    aws.client("cloudformation").delete_stack(StackName="undeletable")
    after = settled(aws, "undeletable")
    assert (after["StackStatus"], after["Outputs"]) == ("DELETE_FAILED", before)
    assert before[0]["ExportName"] == "the-topic"
    assert any("The bucket you tried to delete is not empty" in reason for *_, reason in events(aws, "undeletable"))
    aws.client("s3").delete_object(Bucket="not-empty-at-all", Key="x")
    aws.client("cloudformation").delete_stack(StackName="undeletable")
    wait_for(lambda: not aws.client("cloudformation").list_exports()["Exports"])


def test_a_managed_policy_is_detached_and_goes_with_its_stack(aws: Aws) -> None:
    may = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "*"}
    template = {
        "Resources": {
            "User": {"Type": "AWS::IAM::User", "Properties": {}},
            "Policy": {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": [may]},
                    "Users": [{"Ref": "User"}],
                },
            },
        }
    }
    assert deploy(aws, "of-a-user", template)["StackStatus"] == "CREATE_COMPLETE", events(aws, "of-a-user")
    user, arn = (physical(aws, "of-a-user")[name] for name in ("User", "Policy"))
    assert destroyed(aws, "of-a-user") == "DELETE_COMPLETE", events(aws, "of-a-user")
    iam = aws.client("iam")
    assert user not in [each["UserName"] for each in iam.list_users()["Users"]]
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.get_policy(PolicyArn=arn)


def test_an_output_of_another_stack_is_read_when_a_stack_is_made_or_updated_and_does_not_hold_it(aws: Aws) -> None:
    def producing(value: str) -> Template:
        made = {"Type": "AWS::SSM::Parameter", "Properties": {"Name": "/made", "Type": "String", "Value": value}}
        return {"Resources": {"R": made}, "Outputs": {"O": {"Value": value}}}

    def consuming(output: str, description: str = "") -> Template:
        # the CDK writes the region too, and joins what it reads
        read = {"Fn::GetStackOutput": {"StackName": "producing", "Region": REGION, "OutputName": output}}
        value = {"Fn::Join": ["", ["read: ", read]]}
        properties = {"Name": "/read", "Type": "String", "Value": value, "Description": description}
        return {"Resources": {"R": {"Type": "AWS::SSM::Parameter", "Properties": properties}}}

    def read() -> str:
        return str(aws.client("ssm").get_parameter(Name="/read")["Parameter"]["Value"])

    assert deploy(aws, "producing", producing("one"))["StackStatus"] == "CREATE_COMPLETE"
    assert deploy(aws, "consuming", consuming("O"))["StackStatus"] == "CREATE_COMPLETE"
    assert read() == "read: one"
    deploy(aws, "producing", producing("two"), update=True)
    assert read() == "read: one"
    deploy(aws, "consuming", consuming("O", "changed"), update=True)
    assert read() == "read: two"
    assert deploy(aws, "consuming", consuming("Other"), update=True)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    failed = [event[2] for event in events(aws, "consuming") if "Other" in event[2]]
    assert "stack producing in us-east-1 has no output Other" in failed[0]
    assert destroyed(aws, "producing") == "DELETE_COMPLETE"


def test_what_has_no_service_here_is_remembered_and_can_be_referred_to(aws: Aws) -> None:
    template = {
        "Resources": {
            "Metadata": {"Type": "AWS::CDK::Metadata", "Properties": {"Analytics": "x"}},
            "New": {"Type": "AWS::Cognito::UserPool", "Properties": {"UserPoolName": "pool"}},
        },
        "Outputs": {"Name": {"Value": {"Fn::GetAtt": ["New", "UserPoolName"]}}},
    }
    stack = deploy(aws, "unknown-type", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert outputs(stack) == {"Name": "pool"}


def test_attributes_that_moto_lacks_are_what_else_is_known_of_a_resource(aws: Aws) -> None:
    role = aws.create_role("of-function", "lambda.amazonaws.com")
    code = {"ZipFile": "def handler(event, context):\n    return event\n"}
    function = {"Code": code, "Role": role, "Runtime": "python3.12", "Handler": "index.handler"}
    attributes = {
        "Number": ("Version", "Version"),
        "Topic": ("Topic", "TopicArn"),
        "Queue": ("Queue", "QueueUrl"),
        "Group": ("Group", "Id"),
        "Key": ("Key", "KeyId"),
    }
    template: Template = {
        "Resources": {
            "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
            "Version": {"Type": "AWS::Lambda::Version", "Properties": {"FunctionName": {"Ref": "Function"}}},
            "Alias": {
                "Type": "AWS::Lambda::Alias",
                "Properties": {
                    "Name": "live",
                    "FunctionName": {"Ref": "Function"},
                    "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
                },
            },
            "Topic": {"Type": "AWS::SNS::Topic", "Properties": {}},
            "Queue": {"Type": "AWS::SQS::Queue", "Properties": {}},
            "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
            "Group": {
                "Type": "AWS::EC2::SecurityGroup",
                "Properties": {"GroupDescription": "x", "VpcId": {"Ref": "Vpc"}},
            },
            "Key": {"Type": "AWS::KMS::Key", "Properties": {}},
        },
        "Outputs": {key: {"Value": {"Fn::GetAtt": [*where]}} for key, where in attributes.items()}
        | {"VersionArn": {"Value": {"Ref": "Version"}}},
    }
    stack = deploy(aws, "attributes", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", events(aws, "attributes")
    found, names = outputs(stack), physical(aws, "attributes")
    assert {key: found[key] for key in ("Topic", "Queue", "Group", "Key")} == {
        key: names[key] for key in ("Topic", "Queue", "Group", "Key")
    }, "each is identified by it"
    client = aws.client("lambda")
    published = client.list_versions_by_function(FunctionName=names["Function"])["Versions"][-1]
    assert (found["Number"], found["VersionArn"]) == (published["Version"], published["FunctionArn"])
    assert published["Version"] == "1"
    assert names["Alias"].startswith(f"arn:aws:lambda:{REGION}:{ACCOUNT}:remembered-only-"), "Ref of an alias is an ARN"
    template["Outputs"] = {"Wrong": {"Value": {"Fn::GetAtt": ["Queue", "QueueUri"]}}}
    assert deploy(aws, "no-attribute", template)["StackStatus"] == "ROLLBACK_COMPLETE"
    aws.client("cloudformation").delete_stack(StackName="attributes")
    wait_for(lambda: client.list_functions()["Functions"] == [])


def test_a_fifo_queue_or_topic_gets_a_name_that_ends_in_fifo(aws: Aws) -> None:
    long = "Long" * 20
    template = {
        "Resources": {
            long: {"Type": "AWS::SQS::Queue", "Properties": {"FifoQueue": "true", "ContentBasedDeduplication": True}},
            "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"FifoTopic": True}},
            "Plain": {"Type": "AWS::SQS::Queue", "Properties": {}},
        }
    }
    assert deploy(aws, "in-order", template)["StackStatus"] == "CREATE_COMPLETE", events(aws, "in-order")
    names = {key: value.rpartition("/")[2].rpartition(":")[2] for key, value in physical(aws, "in-order").items()}
    assert {key: name.endswith(".fifo") for key, name in names.items()} == {long: True, "Topic": True, "Plain": False}
    assert all(len(name) <= 80 for name in names.values())


def test_what_refers_to_a_remembered_resource_is_made_as_if_that_were_there(aws: Aws) -> None:
    pool, arn = {"Ref": "Pool"}, {"Fn::GetAtt": ["Pool", "Arn"]}
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    may = {"Effect": "Allow", "Action": "cognito-idp:AdminGetUser", "Resource": [arn, {"Fn::Sub": "${Pool.Arn}/*"}]}
    rule = {"EventPattern": {"source": ["x"]}, "Targets": [{"Id": "Target", "Arn": {"Fn::GetAtt": ["Fleet", "Arn"]}}]}
    template = {
        "Resources": {
            "Pool": {"Type": "AWS::Cognito::UserPool"},
            "Client": {"Type": "AWS::Cognito::UserPoolClient", "Properties": {"UserPoolId": pool}},
            "Fleet": {"Type": "My::Company::Fleet", "Properties": {"Of": pool}},
            "Own": {"Type": "Custom::Own", "Properties": {"ServiceToken": arn}},
            "Rule": {"Type": "AWS::Events::Rule", "Properties": rule},
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
                    "Policies": [
                        {"PolicyName": "May", "PolicyDocument": {"Version": "2012-10-17", "Statement": [may]}},
                    ],
                },
            },
        },
        "Outputs": {"Pool": {"Value": pool}, "Arn": {"Value": arn}, "Own": {"Value": {"Ref": "Own"}}},
    }
    stack = deploy(aws, "remembers", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", events(aws, "remembers")
    found = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    assert found["Pool"].startswith("remembered-only-remembers-Pool-"), "nobody takes it for a name of AWS's"
    assert found["Arn"] == f"arn:aws:cognito:{REGION}:{ACCOUNT}:{found['Pool']}"
    assert found["Own"].startswith("remembered-only-remembers-Own-")
    wrong = {"Resources": {"Client": {"Type": "AWS::Cognito::UserPoolClient", "Properties": {"UserPoolId": "a b"}}}}
    assert deploy(aws, "not-remembered", wrong)["StackStatus"] == "ROLLBACK_COMPLETE", "a name of the user's is checked"


def test_a_secret_has_a_given_or_a_generated_value_and_goes_with_its_stack(aws: Aws) -> None:
    asked = {"SecretStringTemplate": '{"user": "me"}', "GenerateStringKey": "password", "PasswordLength": "20"}
    resources = {
        "Given": {"Type": "AWS::SecretsManager::Secret", "Properties": {"Name": "given", "SecretString": "first"}},
        "Made": {"Type": "AWS::SecretsManager::Secret", "Properties": {"GenerateSecretString": asked}},
        "Word": {
            "Type": "AWS::SecretsManager::Secret",
            "Properties": {"GenerateSecretString": {"ExcludePunctuation": "true"}},
        },
    }
    names = {"Made": {"Value": {"Ref": "Made"}}, "Word": {"Value": {"Fn::GetAtt": ["Word", "Id"]}}}
    stack = deploy(aws, "secrets", {"Resources": resources, "Outputs": names})
    assert stack["StackStatus"] == "CREATE_COMPLETE", events(aws, "secrets")
    ids = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
    client = aws.client("secretsmanager")

    def value(name: str) -> str:
        return str(client.get_secret_value(SecretId=name)["SecretString"])

    made, word = value(ids["Made"]), value(ids["Word"])
    assert json.loads(made)["user"] == "me"
    assert len(json.loads(made)["password"]) == 20
    assert len(word) == 32
    assert word.isalnum()
    resources["Given"]["Properties"] = {"Name": "given", "SecretString": "second"}
    resources["Made"]["Properties"] = {"GenerateSecretString": asked, "Description": "mine"}
    again = json.dumps({"Resources": resources, "Outputs": names})
    aws.client("cloudformation").update_stack(StackName="secrets", TemplateBody=again)
    assert settled(aws, "secrets")["StackStatus"] == "UPDATE_COMPLETE"
    assert (value("given"), value(ids["Made"])) == ("second", made)
    assert client.describe_secret(SecretId=ids["Made"])["Description"] == "mine"
    aws.client("cloudformation").delete_stack(StackName="secrets")
    wait_for(lambda: client.list_secrets()["SecretList"] == [])


def test_scaling_and_alarms_reach_their_services(aws: Aws) -> None:
    template = serving(aws, "scaling")
    resource = "endpoint/scaling/variant/AllTraffic"
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource,
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "MinCapacity": 1,
        "MaxCapacity": 3,
    }
    template["Resources"] |= {
        "Target": {
            "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
            "Properties": target,
            "DependsOn": ["Endpoint"],
        },
        "Policy": {
            "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
            "Properties": {
                "PolicyName": "track",
                "PolicyType": "TargetTrackingScaling",
                "ScalingTargetId": {"Ref": "Target"},
                "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 5, **INVOCATIONS},
            },
        },
        "Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "Namespace": "AWS/SageMaker",
                "MetricName": "Invocation5XXErrors",
                "ComparisonOperator": "GreaterThanThreshold",
                "EvaluationPeriods": 1,
                "Period": 60,
                "Threshold": 0,
                "Statistic": "Sum",
                "Dimensions": [{"Name": "EndpointName", "Value": "scaling"}],
            },
        },
    }
    assert deploy(aws, "scaling", template)["StackStatus"] == "CREATE_COMPLETE"
    scaling, watch = aws.client("application-autoscaling"), aws.client("cloudwatch")

    def targets() -> list[str]:
        found = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        return [each["ResourceId"] for each in found]

    def alarms() -> list[str]:
        found = watch.describe_alarms()["MetricAlarms"]
        return [each["AlarmName"] for each in found if each["AlarmName"].startswith("scaling-Alarm-")]

    assert resource in targets()
    assert len(alarms()) == 1
    aws.client("cloudformation").delete_stack(StackName="scaling")
    assert resource not in targets()
    assert alarms() == []


def test_a_broken_template_is_refused_at_once(aws: Aws) -> None:
    circular = {
        "A": {"Type": "AWS::SSM::Parameter", "Properties": {"Value": {"Ref": "B"}}},
        "B": {"Type": "AWS::SSM::Parameter", "Properties": {"Value": {"Ref": "A"}}},
    }
    with pytest.raises(ClientError, match="Circular dependency between resources"):
        deploy(aws, "circular", {"Resources": circular})
    with pytest.raises(ClientError, match="does not exist"):
        aws.client("cloudformation").describe_stacks(StackName="circular")


def test_two_stacks_of_two_servers_know_nothing_of_each_other(aws: Aws, start_aws: Callable[..., Aws]) -> None:
    other = start_aws()
    deploy(other, "elsewhere", {"Resources": {"R": repository("elsewhere")}})
    assert "elsewhere" not in aws.left()["stacks"]


def test_a_vpc_is_deleted_with_everything_in_it(aws: Aws) -> None:
    def part(kind: str, **properties: Any) -> Template:
        return {"Type": f"AWS::EC2::{kind}", "Properties": properties}

    vpc, table, subnet = {"Ref": "Vpc"}, {"Ref": "Table"}, {"Ref": "Subnet"}
    template = {
        "Resources": {
            "Vpc": part("VPC", CidrBlock="10.7.0.0/16"),
            "Subnet": part("Subnet", VpcId=vpc, CidrBlock="10.7.1.0/24"),
            "Table": part("RouteTable", VpcId=vpc),
            "InTable": part("SubnetRouteTableAssociation", RouteTableId=table, SubnetId=subnet),
            "Gateway": part("InternetGateway"),
            "Attached": part("VPCGatewayAttachment", VpcId=vpc, InternetGatewayId={"Ref": "Gateway"}),
            "Route": part("Route", RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId={"Ref": "Gateway"})
            | {"DependsOn": "Attached"},
            "Address": part("EIP", Domain="vpc"),
            "Nat": part("NatGateway", SubnetId=subnet, AllocationId={"Fn::GetAtt": ["Address", "AllocationId"]}),
            "Endpoint": part(
                "VPCEndpoint",
                VpcId=vpc,
                ServiceName=f"com.amazonaws.{REGION}.s3",
                VpcEndpointType="Gateway",
                RouteTableIds=[table],
            ),
        }
    }
    ec2 = aws.client("ec2")
    before = {name: len(found) for name, found in parts_of_vpcs(ec2).items()}
    made = deploy(aws, "network", template)
    assert made["StackStatus"] == "CREATE_COMPLETE"
    during = {name: len(found) for name, found in parts_of_vpcs(ec2).items()}
    assert all(during[name] > before[name] for name in before), during
    aws.client("cloudformation").delete_stack(StackName="network")
    assert settled(aws, made["StackId"])["StackStatus"] == "DELETE_COMPLETE"
    assert {name: len(found) for name, found in parts_of_vpcs(ec2).items()} == before


def parts_of_vpcs(ec2: Any) -> dict[str, list[Any]]:
    gateways = ec2.describe_nat_gateways()["NatGateways"]
    endpoints = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    return {
        "vpcs": ec2.describe_vpcs()["Vpcs"],
        "subnets": ec2.describe_subnets()["Subnets"],
        "tables": ec2.describe_route_tables()["RouteTables"],
        "gateways": ec2.describe_internet_gateways()["InternetGateways"],
        "addresses": ec2.describe_addresses()["Addresses"],
        "nats": [each for each in gateways if each["State"] != "deleted"],
        "endpoints": [each for each in endpoints if each["State"] != "deleted"],
    }


TOPICS = {"Parameters": {"Name": {"Type": "String"}}, "Outputs": {"Arn": {"Value": {"Ref": "One"}}}}


def nested(aws: Aws, key: str, name: str, **resources: Any) -> dict[str, Any]:
    """A template with a nested stack of a topic and these resources, whose output it uses."""
    aws.client("s3").create_bucket(Bucket="nested")
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Ref": "Name"}}}
    inner = {**TOPICS, "Resources": {"One": topic, **resources}}
    aws.client("s3").put_object(Bucket="nested", Key=key, Body=json.dumps(inner))
    properties = {"TemplateURL": f"https://s3.{REGION}.amazonaws.com/nested/{key}", "Parameters": {"Name": name}}
    value = {"Type": "String", "Value": {"Fn::GetAtt": ["Inner", "Outputs.Arn"]}}
    return {
        "Resources": {
            "Inner": {"Type": "AWS::CloudFormation::Stack", "Properties": properties},
            "Noted": {"Type": "AWS::SSM::Parameter", "Properties": {**value, "Name": f"/nested/{key}"}},
        }
    }


def test_a_nested_stack_is_updated_in_place_rolled_back_and_deleted_with_its_parent(aws: Aws) -> None:
    assert deploy(aws, "parent", nested(aws, "one", "first"))["StackStatus"] == "CREATE_COMPLETE"
    arn = aws.client("ssm").get_parameter(Name="/nested/one")["Parameter"]["Value"]

    def name() -> str:
        found: str = aws.client("sns").get_topic_attributes(TopicArn=arn)["Attributes"]["DisplayName"]
        return found

    second = {"Two": {"Type": "AWS::SNS::Topic"}}
    assert (
        deploy(aws, "parent", nested(aws, "one", "second", **second), update=True)["StackStatus"] == "UPDATE_COMPLETE"
    )
    inner = aws.client("cloudformation").describe_stack_resource(StackName="parent", LogicalResourceId="Inner")
    child = inner["StackResourceDetail"]["PhysicalResourceId"]
    statuses = [(each, status) for each, status, _ in events(aws, child)]
    assert ("Two", "CREATE_COMPLETE") in statuses
    assert ("One", "DELETE_COMPLETE") not in statuses
    assert name() == "second"
    wrong = {"Protocol": "email", "Endpoint": "nobody", "TopicArn": {"Ref": "One"}}
    broken = nested(aws, "two", "third", Sub={"Type": "AWS::SNS::Subscription", "Properties": wrong})
    broken["Resources"]["Noted"]["Properties"]["Name"] = "/nested/one"
    assert deploy(aws, "parent", broken, update=True)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    (why,) = [why for each, status, why in events(aws, "parent") if (each, status) == ("Inner", "UPDATE_FAILED")]
    assert (
        why
        == f"Embedded stack {child} was not successfully updated: The following resource(s) failed to update: [Sub]."
    )
    assert name() == "second"
    aws.client("cloudformation").delete_stack(StackName="parent")
    with pytest.raises(ClientError, match="NotFound"):
        name()


def test_a_nested_stack_meets_the_table_and_the_rights_of_its_parents_role(aws: Aws) -> None:
    unknown = nested(aws, "unknown", "x", Two={"Type": "AWS::SNS::Topik"})
    assert deploy(aws, "unknown", unknown)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Unrecognized resource types: [AWS::SNS::Topik]" in str(events(aws, "unknown"))
    allowed = {"Effect": "Allow", "Action": ["cloudformation:*", "s3:*", "ssm:*"], "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    role = aws.create_role("nests", "cloudformation.amazonaws.com", Nests=policy)
    assert deploy(aws, "denied", nested(aws, "denied", "x"), role=role)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "failed to create: [One]" in str(events(aws, "denied"))
    assert not [each for each in aws.left()["stacks"] if each.startswith(("unknown-Inner", "denied-Inner"))]
