"""The copy from the Hub to S3: its CodeBuild project, its permissions and its build."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aws_cdk import Aws, CfnWaitCondition, Duration
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from extended_dlc.constructs.archive import Uploaded, upload_file
from extended_dlc.constructs.codebuild import LONGEST_SECONDS, QUEUE_SECONDS, start_and_wait
from extended_dlc.constructs.principals import trust_builds_of_account
from extended_dlc.programs.copy_model import UNVERIFIED

# Not copy.py: it would shadow the standard library's copy module.
_BUILD = {
    "version": "0.2",
    "phases": {
        "build": {
            "commands": [
                'aws s3 cp --quiet "$PROGRAM" copy_model.py',
                "python3 -c 'import boto3' || python3 -m pip install --quiet boto3",
                'python3 copy_model.py $ARGUMENTS --signal "$SIGNAL"',
            ]
        },
        "post_build": {
            # Reports failures before the program could; a second failure signal changes nothing.
            "commands": [
                'test "$CODEBUILD_BUILD_SUCCEEDING" = 1 || curl --silent --show-error --request PUT '
                "--header 'Content-Type:' --data-binary "
                '\'{"Status": "FAILURE", "UniqueId": "build", "Reason": "the copy failed: see the log of the build", '
                '"Data": ""}\' "$SIGNAL"'
            ]
        },
    },
}


@dataclass(frozen=True, kw_only=True)
class HubCopy:
    """One commit of a model or data set, and where it is copied."""

    kind: Literal["model", "dataset"]
    model_id: str
    revision: str
    token: secretsmanager.ISecret | None
    bucket: s3.IBucket
    makes_bucket: bool
    """Whether the first copy makes the bucket."""

    prefix: str
    project: codebuild.IProject
    seconds: int


def new_project(scope: Construct, model_id: str) -> codebuild.Project:
    """The CodeBuild project that copies."""
    project = codebuild.Project(
        scope,
        "Project",
        description=f"Copies {model_id} from the Hugging Face Hub to S3",
        environment=codebuild.BuildEnvironment(
            build_image=codebuild.LinuxBuildImage.STANDARD_7_0,
            # The copy needs a few hundred MB of memory; new accounts have quota for the small type alone, if any.
            compute_type=codebuild.ComputeType.SMALL,
        ),
        build_spec=codebuild.BuildSpec.from_object(_BUILD),
        timeout=Duration.seconds(LONGEST_SECONDS),
        queued_timeout=Duration.seconds(QUEUE_SECONDS),
        grant_report_group_permissions=False,  # a copy has no test reports
    )
    trust_builds_of_account(scope, project.role)
    return project


def copy_to_s3(scope: Construct, copy: HubCopy) -> CfnWaitCondition:
    """Let each deployment copy what is not in the bucket yet; what depends on the result waits for the copy."""
    program = upload_file(scope, Path(__file__).parents[1] / "programs" / "copy_model.py")
    _grant(copy, program)
    return _start(scope, copy, program)


def _grant(copy: HubCopy, program: Uploaded) -> None:
    bucket = f"arn:{Aws.PARTITION}:s3:::{copy.bucket.bucket_name}"
    in_parts = ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    on_bucket = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    if copy.makes_bucket:
        on_bucket += ["s3:CreateBucket", "s3:PutBucketPublicAccessBlock"]
        on_bucket += [
            f"s3:{verb}{what}" for what in ("LifecycleConfiguration", "BucketPolicy") for verb in ("Get", "Put")
        ]
    for actions, resource in (
        (["s3:GetObject"], f"arn:{Aws.PARTITION}:s3:::{program.bucket}/{program.key}"),
        (["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"], f"{bucket}/{copy.prefix}*"),
        (["s3:PutObject", "s3:GetObject", "s3:DeleteObject", *in_parts], f"{bucket}/{UNVERIFIED}{copy.prefix}*"),
        (["s3:PutObject", "s3:GetObject"], f"{bucket}/{copy.prefix.rstrip('/')}.json"),
        (on_bucket, bucket),
    ):
        copy.project.grant_principal.add_to_principal_policy(iam.PolicyStatement(actions=actions, resources=[resource]))
    if copy.project.role is None:  # a project imported by name: its owner grants the rest
        return
    if copy.bucket.encryption_key is not None:
        copy.bucket.encryption_key.grant_encrypt_decrypt(copy.project)
    if copy.token is not None:
        copy.token.grant_read(copy.project)


def _start(scope: Construct, copy: HubCopy, program: Uploaded) -> CfnWaitCondition:
    # The wait condition's id contains what is copied, so that another commit gets another one.
    what = hashlib.sha256(json.dumps([copy.model_id, copy.revision, scope.node.path]).encode()).hexdigest()[:8]
    arguments = {
        "model": copy.model_id,
        **({"kind": copy.kind} if copy.kind != "model" else {}),
        "revision": copy.revision,
        "bucket": copy.bucket.bucket_name,
        "prefix": copy.prefix,
        "seconds": str(copy.seconds - 120),  # the program stops itself first, and reports it
        **({"make-bucket-in": Aws.ACCOUNT_ID} if copy.makes_bucket else {}),
        **({"token-secret": copy.token.secret_arn} if copy.token else {}),
    }
    variables = {
        "PROGRAM": f"s3://{program.bucket}/{program.key}",
        "ARGUMENTS": " ".join(f"--{name}={value}" for name, value in arguments.items()),
    }
    return start_and_wait(
        scope,
        copy.project,
        resource_type="Custom::ExtendedDlcMirror",
        spec=_BUILD,
        variables=variables,
        key=what,
        physical_id=f"{copy.model_id}-{copy.revision}",
        seconds=copy.seconds,
        ready_id="Copied",
    )
