"""Data capture to S3, and the buckets for captured data and for asynchronous requests and responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aws_cdk import Duration
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from extended_dlc.constructs.buckets import grant_objects, private_bucket
from extended_dlc.options.capture import DataCapture

if TYPE_CHECKING:
    from aws_cdk import aws_kms as kms
    from aws_cdk import aws_s3 as s3

    from extended_dlc.endpoint.endpoint import HuggingFaceEndpoint

EXPIRE_DAYS = 30


def expiring_bucket(scope: Construct, construct_id: str, *, key: kms.IKey | None, expire_days: int | None) -> s3.Bucket:
    """A private bucket whose objects expire."""
    from aws_cdk import aws_s3 as s3

    rule = s3.LifecycleRule(
        expiration=Duration.days(expire_days or EXPIRE_DAYS),
        abort_incomplete_multipart_upload_after=Duration.days(1),
    )
    return private_bucket(scope, construct_id, key=key, rules=[rule])


def data_capture_config(
    endpoint: HuggingFaceEndpoint, capture: DataCapture | None, key: kms.IKey | None
) -> tuple[s3.IBucket | None, sagemaker.CfnEndpointConfig.DataCaptureConfigProperty | None]:
    """The bucket and the `DataCaptureConfig` of the endpoint, if any; its role is allowed to write there."""
    if capture is None:
        return None, None
    name, config = endpoint.endpoint_name, sagemaker.CfnEndpointConfig
    bucket = capture.bucket or expiring_bucket(endpoint, "CaptureBucket", key=key, expire_days=capture.expire_days)
    grant_objects(bucket, endpoint.role, f"{name}/capture/*", write=True)
    return bucket, config.DataCaptureConfigProperty(
        enable_capture=True,
        initial_sampling_percentage=capture.sampling_percent,
        destination_s3_uri=bucket.s3_url_for_object(f"{name}/capture"),
        capture_options=[
            config.CaptureOptionProperty(capture_mode=mode.capitalize())
            for mode in ("input", "output")
            if mode in capture.capture
        ],
        capture_content_type_header=config.CaptureContentTypeHeaderProperty(
            csv_content_types=list(capture.csv_content_types) or None,
            json_content_types=list(capture.json_content_types) or None,
        )
        if capture.csv_content_types or capture.json_content_types
        else None,
        kms_key_id=key.key_arn if key else None,
    )
