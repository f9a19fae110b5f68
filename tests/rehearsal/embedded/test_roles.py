"""What AWS does with a role is done as the role: CloudFormation, SageMaker's files and topics, and who may assume."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.support.embedded import ACCOUNT, REGION, Aws, deploy, events, settled, wait_for
from tests.support.endpoints import endpoint

Json = dict[str, Any]

ROLE = f"arn:aws:iam::{ACCOUNT}:role"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"


def allow(*actions: str, on: str | list[str] = "*", **more: Any) -> Json:
    return {"Effect": "Allow", "Action": list(actions), "Resource": on, **more}


def policy(*statements: Json) -> Json:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def own_role(aws: Aws, name: str, *statements: Json) -> Any:
    """A function that gives clients with the credentials of a role that the account trusts."""
    return clients_of(aws, aws.create_role(name, ROOT, P=policy(*statements)))


def clients_of(aws: Aws, role: str) -> Any:
    given = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    keys = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    return lambda service: boto3.client(service, region_name=REGION, endpoint_url=aws.url, **keys)


GROUP: Json = {"Resources": {"Group": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 7}}}}


def failed(aws: Aws, stack: str) -> str:
    return "; ".join(why for _, status, why in events(aws, stack) if status.endswith("_FAILED"))


def test_cloudformation_makes_changes_and_deletes_as_its_role(aws: Aws) -> None:
    client = aws.client("cloudformation")
    creating = allow("logs:CreateLogGroup", "logs:PutRetentionPolicy")
    role = aws.create_role("deployer", "cloudformation.amazonaws.com", P=policy(creating))
    client.create_stack(StackName="as-role", TemplateBody=json.dumps(GROUP), RoleARN=role)
    assert settled(aws, "as-role")["StackStatus"] == "CREATE_COMPLETE"
    client.delete_stack(StackName="as-role")
    assert settled(aws, "as-role")["StackStatus"] == "DELETE_FAILED"
    refused = "assumed-role/deployer/AWSCloudFormation is not authorized to perform: logs:DeleteLogGroup on resource"
    assert f"{refused}: arn:aws:logs:{REGION}:{ACCOUNT}:log-group:as-role-Group-" in failed(aws, "as-role")
    less = aws.create_role("less", "cloudformation.amazonaws.com", P=policy(allow("logs:CreateLogGroup")))
    client.create_stack(StackName="as-less", TemplateBody=json.dumps(GROUP), RoleARN=less)
    assert settled(aws, "as-less")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "perform: logs:PutRetentionPolicy on resource" in failed(aws, "as-less")
    assert "(HandlerErrorCode: AccessDenied)" in failed(aws, "as-less")
    types = {"Bucket": ("AWS::S3::Bucket", "s3:CreateBucket"), "Topic": ("AWS::SNS::Topic", "sns:CreateTopic")}
    for name, (kind, action) in types.items():
        template = {"Resources": {name: {"Type": kind}}}
        client.create_stack(StackName=f"as-less-{name}", TemplateBody=json.dumps(template), RoleARN=less)
        assert settled(aws, f"as-less-{name}")["StackStatus"] == "ROLLBACK_COMPLETE"
        assert (
            f"assumed-role/less/AWSCloudFormation is not authorized to perform: {action} on resource: arn:"
            in failed(aws, f"as-less-{name}")
        )
    for arn in (f"{ROLE}/execution", f"{ROLE}/absent"):
        with pytest.raises(ClientError, match=f"Role {arn} is invalid or cannot be assumed"):
            client.create_stack(StackName="as-nobody", TemplateBody=json.dumps(GROUP), RoleARN=arn)


def test_without_a_role_cloudformation_makes_the_resources_as_its_caller(aws: Aws) -> None:
    client = own_role(aws, "developer", allow("cloudformation:*"))("cloudformation")
    client.create_stack(StackName="as-caller", TemplateBody=json.dumps(GROUP))
    assert settled(aws, "as-caller")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "assumed-role/developer/me is not authorized to perform: logs:CreateLogGroup" in failed(aws, "as-caller")


def test_a_role_is_assumed_only_by_whom_it_trusts(aws: Aws) -> None:
    sts, iam = aws.client("sts"), aws.client("iam")
    with pytest.raises(ClientError, match=r"is not authorized to perform: sts:AssumeRole on .*role/execution"):
        sts.assume_role(RoleArn=f"{ROLE}/execution", RoleSessionName="me")
    for name, account in (("mine", ACCOUNT), ("theirs", "999999999999")):
        for service, resource in (("states", "stateMachine:*"), ("sagemaker", "*")):  # as the CDK and this project ask
            trusted = {
                "Effect": "Allow",
                "Principal": {"Service": f"{service}.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "StringEquals": {"aws:SourceAccount": account},
                    "ArnLike": {"aws:SourceArn": f"arn:aws:{service}:{REGION}:{account}:{resource}"},
                },
            }
            iam.create_role(RoleName=f"{name}-{service}", AssumeRolePolicyDocument=json.dumps(policy(trusted)))
    states, sagemaker = aws.client("stepfunctions"), aws.client("sagemaker")
    definition = json.dumps({"StartAt": "End", "States": {"End": {"Type": "Succeed"}}})
    states.create_state_machine(name="m", definition=definition, roleArn=f"{ROLE}/mine-states")
    for service in ("theirs-states", "mine-sagemaker"):
        with pytest.raises(ClientError, match="is authorized to assume the provided role"):
            states.create_state_machine(name="n", definition=definition, roleArn=f"{ROLE}/{service}")
    job = {
        "AlgorithmSpecification": {"TrainingImage": "registry.invalid/x:1", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://out/x"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    with pytest.raises(ClientError, match=r"Could not assume role .*theirs-sagemaker"):
        sagemaker.create_training_job(TrainingJobName="j", RoleArn=f"{ROLE}/theirs-sagemaker", **job)


def test_policies_of_a_bucket_and_a_topic_from_a_template_count_with_the_caller_s_own(aws: Aws) -> None:
    clients = own_role(aws, "reader", allow("s3:GetObject"))
    reader = f"{ROLE}/reader"
    secret = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::of-policy/secret"}
    insecure = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    theirs = {"Effect": "Allow", "Principal": {"AWS": reader}, "Resource": "*"}
    put, tell = {**theirs, "Action": "s3:PutObject"}, {**theirs, "Action": "sns:Publish"}
    template = {
        "Resources": {
            "Bucket": {
                "Type": "AWS::S3::Bucket",
                "Properties": {"BucketName": "of-policy"},
                "DeletionPolicy": "Retain",
            },
            "Policy": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {"Bucket": {"Ref": "Bucket"}, "PolicyDocument": policy(secret, insecure, put)},
            },
            "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "of-policy"}},
            "Told": {
                "Type": "AWS::SNS::TopicPolicy",
                "Properties": {"Topics": [{"Ref": "Topic"}], "PolicyDocument": policy(tell)},
            },
        }
    }
    assert deploy(aws, "of-policy", template)["StackStatus"] == "CREATE_COMPLETE", events(aws, "of-policy")
    s3 = clients("s3")
    for key in ("open", "secret"):
        s3.put_object(Bucket="of-policy", Key=key, Body=b"x")
    assert s3.get_object(Bucket="of-policy", Key="open")["Body"].read() == b"x"
    with pytest.raises(ClientError, match="explicit deny in a resource-based policy"):
        s3.get_object(Bucket="of-policy", Key="secret")
    clients("sns").publish(TopicArn=f"arn:aws:sns:{REGION}:{ACCOUNT}:of-policy", Message="m")
    aws.client("cloudformation").delete_stack(StackName="of-policy")
    assert s3.get_object(Bucket="of-policy", Key="secret")["Body"].read() == b"x"
    with pytest.raises(ClientError, match="perform: s3:PutObject"):
        s3.put_object(Bucket="of-policy", Key="open", Body=b"x")


def test_captured_data_and_answers_of_a_queue_are_written_as_the_endpoints_role(aws: Aws) -> None:
    s3, kms, iam = aws.client("s3"), aws.client("kms"), aws.client("iam")
    s3.create_bucket(Bucket="as-endpoint")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    topic = aws.client("sns").create_topic(Name="as-endpoint", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    role = aws.create_role("serving", "sagemaker.amazonaws.com", Pull=policy(allow("ecr:*", "logs:*")))
    capture = {
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": "s3://as-endpoint/capture",
        "KmsKeyId": key,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    endpoint(aws, "as-captured", GREETING="hi", role=role, DataCaptureConfig=capture)
    output = {
        "S3OutputPath": "s3://as-endpoint/out",
        "S3FailurePath": "s3://as-endpoint/failed",
        "KmsKeyId": key,
        "NotificationConfig": {"SuccessTopic": topic},
    }
    endpoint(aws, "as-queued", GREETING="hi", role=role, AsyncInferenceConfig={"OutputConfig": output})
    runtime = aws.client("sagemaker-runtime")

    def written(prefix: str) -> list[str]:
        found = s3.list_objects_v2(Bucket="as-endpoint", Prefix=prefix).get("Contents", [])
        return [each["Key"] for each in found]

    def ask() -> None:
        runtime.invoke_endpoint(EndpointName="as-captured", Body=b'{"a": 1}', ContentType="application/json")

    def rights(*statements: Json) -> None:
        iam.put_role_policy(RoleName="serving", PolicyName="Files", PolicyDocument=json.dumps(policy(*statements)))

    def tried(action: str) -> list[bool]:
        lines = [json.loads(each) for each in (aws.state / "logs" / "rights.jsonl").read_text().splitlines()]
        return [each["allowed"] for each in lines if each["principal"] == role and each["action"] == action]

    ask()  # the answer comes without a capture, because the role may not write
    assert tried("s3:PutObject") == [False]
    objects = "arn:aws:s3:::as-endpoint"
    rights(allow("s3:PutObject", on=f"{objects}/*"))
    ask()
    assert tried("kms:GenerateDataKey") == [False]
    assert written("capture") == []
    rights(allow("s3:PutObject", on=f"{objects}/*"), allow("kms:GenerateDataKey", on=key))
    ask()
    (file,) = written("capture")
    assert file.startswith("capture/as-captured/AllTraffic/20")
    captured = json.loads(s3.get_object(Bucket="as-endpoint", Key=file)["Body"].read())["captureData"]
    assert captured["endpointInput"] == {
        "observedContentType": "application/json",
        "mode": "INPUT",
        "data": '{"a": 1}',
        "encoding": "JSON",
    }
    assert captured["endpointOutput"]["encoding"] == "BASE64"

    def queue(**given: Any) -> None:
        runtime.invoke_endpoint_async(EndpointName="as-queued", InputLocation="s3://as-endpoint/in", **given)

    s3.put_object(Bucket="as-endpoint", Key="in", Body=b"{}")
    queue()
    wait_for(lambda: written("failed") != [])
    reason = s3.get_object(Bucket="as-endpoint", Key=written("failed")[0])["Body"].read().decode()
    assert "Failed to download input from s3://as-endpoint/in" in reason
    assert "serving/embedded is not authorized to perform: s3:GetObject" in reason
    files = [
        allow("s3:PutObject", "s3:GetObject", on=f"{objects}/*"),
        allow("kms:GenerateDataKey", "kms:Decrypt", on=key),
    ]
    rights(*files)
    queue(Filename="first")
    wait_for(lambda: tried("sns:Publish") == [False])
    assert written("out") == ["out/first"]
    rights(*files, allow("sns:Publish", on=topic))
    queue(Filename="second")
    wait_for(lambda: tried("kms:Decrypt") == [True])


def test_a_role_with_a_policy_of_awss_own_reads_what_a_template_made_and_changes_nothing(aws: Aws) -> None:
    template = {
        "Resources": {
            "Key": {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": policy({**allow("kms:*"), "Principal": "*"})}},
            "Reader": {
                "Type": "AWS::IAM::Role",
                "Properties": {
                    "RoleName": "looks-only",
                    "AssumeRolePolicyDocument": policy(
                        {"Effect": "Allow", "Principal": {"AWS": ROOT}, "Action": "sts:AssumeRole"}
                    ),
                    "ManagedPolicyArns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
                },
            },
        }
    }
    stack = deploy(aws, "read-only", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    resources = aws.client("cloudformation").describe_stack_resources(StackName="read-only")["StackResources"]
    (key,) = [each["PhysicalResourceId"] for each in resources if each["LogicalResourceId"] == "Key"]
    assert aws.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"
    client = clients_of(aws, f"{ROLE}/looks-only")("cloudformation")
    assert client.describe_stacks(StackName="read-only")["Stacks"]
    with pytest.raises(ClientError, match=r"not authorized to perform: cloudformation:DeleteStack"):
        client.delete_stack(StackName="read-only")


def test_a_role_makes_keys_and_aliases_by_its_own_policies_and_uses_keys_by_theirs(aws: Aws) -> None:
    account = {**allow("kms:*"), "Principal": {"AWS": ROOT}}
    key = {"Type": "AWS::KMS::Key", "Properties": {"KeyPolicy": policy(account), "EnableKeyRotation": True}}
    template = {
        "Resources": {
            "Key": key,
            "Name": {
                "Type": "AWS::KMS::Alias",
                "Properties": {"AliasName": "alias/of-a-stack", "TargetKeyId": {"Fn::GetAtt": ["Key", "Arn"]}},
            },
            "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"KmsMasterKeyId": {"Fn::GetAtt": ["Key", "Arn"]}}},
        }
    }
    client = aws.client("cloudformation")
    role = aws.create_role("bootstrapped", "cloudformation.amazonaws.com", P=policy(allow("*")))
    client.create_stack(StackName="with-keys", TemplateBody=json.dumps(template), RoleARN=role)
    assert settled(aws, "with-keys")["StackStatus"] == "CREATE_COMPLETE", failed(aws, "with-keys")
    less = aws.create_role("keyless", "cloudformation.amazonaws.com", P=policy(allow("sqs:*", "kms:TagResource")))
    client.create_stack(StackName="without-keys", TemplateBody=json.dumps({"Resources": {"Key": key}}), RoleARN=less)
    assert settled(aws, "without-keys")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "perform: kms:CreateKey on resource: *" in failed(aws, "without-keys")
    mine = own_role(aws, "lists-keys", allow("kms:*"))("kms")
    assert "alias/of-a-stack" in {each["AliasName"] for each in mine.list_aliases()["Aliases"]}
    assert mine.describe_key(KeyId="alias/of-a-stack")["KeyMetadata"]["KeyState"] == "Enabled"
    closed = {**allow("kms:*"), "Principal": {"AWS": less}}
    other = aws.client("kms").create_key(Policy=json.dumps(policy(closed)), BypassPolicyLockoutSafetyCheck=True)
    with pytest.raises(ClientError, match="because no resource-based policy allows the kms:DescribeKey action"):
        mine.describe_key(KeyId=other["KeyMetadata"]["Arn"])
