"""Custom resources of the CDK and other libraries: functions of this process run in place of their Lambda functions."""

from __future__ import annotations

from moto.ecr.models import ecr_backends
from moto.s3.models import s3_backends

from extended_dlc.rehearsal.embedded import ecr
from extended_dlc.rehearsal.embedded.iam import Iam
from extended_dlc.rehearsal.embedded.references import EcrReference
from extended_dlc.rehearsal.embedded.resources import CustomHandler, CustomResourceFailed, Properties, Wish
from extended_dlc.rehearsal.embedded.shapes import Refusal
from extended_dlc.rehearsal.embedded.store import BlobStore

_READS = ("ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
_WRITES = (
    "ecr:GetAuthorizationToken",
    "ecr:BatchCheckLayerAvailability",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecr:CompleteLayerUpload",
    "ecr:PutImage",
)
"""The actions that the copy needs on ECR (ECR user guide, "Required IAM permissions for pushing an image")."""


def _may_copy(iam: Iam, wish: Wish, source: EcrReference, target: EcrReference) -> None:
    """Raise `Refusal` unless the function's role may read the source repository and write the target repository."""
    needs = []
    for reference, actions in ((source, _READS), (target, _WRITES)):
        account, region = reference.account or wish.account_id, reference.region or wish.region
        arn = f"arn:aws:ecr:{region}:{account}:repository/{reference.repository}"
        needs += [(action, "*" if action == "ecr:GetAuthorizationToken" else arn) for action in actions]
    token = str(wish.properties.get("ServiceToken", ""))
    iam.require_of_function(token, needs, account_id=wish.account_id, region=wish.region)


def copy_image(blobs: BlobStore, iam: Iam, *, port: int) -> CustomHandler:
    """`Custom::CDKECRDeployment` (cdk-ecr-deployment): copies an image between repositories, again at each update."""

    def handle(kind: str, wish: Wish) -> Properties:
        if kind == "Delete":
            return {}
        source = EcrReference.parse(wish.properties["SrcImage"], port=port)
        target = EcrReference.parse(wish.properties["DestImage"], port=port)
        if source is None or target is None:
            raise CustomResourceFailed(
                "copy image failed: the embedded ECR copies between ECR repositories only, not from "
                f"{wish.properties['SrcImage']} to {wish.properties['DestImage']}"
            )
        try:
            _may_copy(iam, wish, source, target)
        except Refusal as refusal:
            raise CustomResourceFailed(f"copy image failed: denied: {refusal.message}") from None
        found = ecr.resolve(source)
        if found is None:
            raise CustomResourceFailed(
                f"copy image failed: reading manifest {source.digest or source.tag} in {source.repository}: "
                "manifest unknown: Requested image not found"
            )
        repository = ecr.repository_of(target)
        if repository is None:
            raise CustomResourceFailed(
                f"copy image failed: name unknown: The repository with name '{target.repository}' does not exist in "
                f"the registry with id '{wish.account_id}'"
            )
        manifest = found[1].image_manifest.encode()
        try:
            ecr.push(repository, manifest, found[1].image_manifest_media_type, target.tag, blobs)
        except ecr.Refused as error:
            raise CustomResourceFailed(f"copy image failed: writing manifest: {error}") from None
        return {}

    return handle


def empty_bucket(kind: str, wish: Wish) -> Properties:
    """`Custom::S3AutoDeleteObjects`: empties the bucket before it is deleted."""
    buckets = s3_backends[wish.account_id]["aws"].buckets
    if kind == "Delete" and (bucket := buckets.get(wish.properties["BucketName"])):
        bucket.keys.clear()
    return {}


def empty_repository(kind: str, wish: Wish) -> Properties:
    """`Custom::ECRAutoDeleteImages`: empties the repository before it is deleted."""
    repositories = ecr_backends[wish.account_id][wish.region].repositories
    if kind == "Delete" and (repository := repositories.get(wish.properties["RepositoryName"])):
        repository.images.clear()
    return {}
