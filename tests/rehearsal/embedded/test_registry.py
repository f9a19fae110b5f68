"""The registry over HTTP, beside ECR's API."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.support.embedded import ACCOUNT, DOCKER, INDEX, OCI, Aws, Image, digest
from tests.support.registry import repository


def test_an_engine_can_log_in_with_the_token_that_ecr_gives(aws: Aws) -> None:
    data = aws.client("ecr").get_authorization_token()["authorizationData"][0]
    assert base64.b64decode(data["authorizationToken"]).startswith(b"AWS:")
    assert data["proxyEndpoint"] == f"http://127.0.0.1:{aws.port}"
    answer = aws.request("GET", "/v2/", headers={"Authorization": f"Basic {data['authorizationToken']}"})
    assert answer.status == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


def test_signed_requests_below_v2_are_api_gateways(aws: Aws) -> None:
    assert aws.client("apigatewayv2").get_apis()["Items"] == []


def test_a_pushed_image_is_in_ecr_and_is_pulled_by_tag_and_by_digest(aws: Aws) -> None:
    name, image = repository(aws, "round/trip"), Image("round")
    assert image.push(aws, name, "v1").status == 201
    detail = aws.client("ecr").describe_images(repositoryName=name)["imageDetails"][0]
    assert detail["imageDigest"] == digest(image.manifest)
    assert detail["imageTags"] == ["v1"]
    assert detail["imageManifestMediaType"] == DOCKER
    assert detail["imageSizeInBytes"] == len(image.layer) + len(image.configuration)
    for reference in ("v1", digest(image.manifest)):
        got = aws.request("GET", f"/v2/{name}/manifests/{reference}")
        assert (got.status, got.body) == (200, image.manifest)
        assert got.headers["content-type"] == DOCKER
        assert got.headers["docker-content-digest"] == digest(image.manifest)
        head = aws.request("HEAD", f"/v2/{name}/manifests/{reference}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(image.manifest))
    assert aws.request("GET", f"/v2/{name}/blobs/{digest(image.layer)}").body == image.layer
    assert json.loads(aws.request("GET", f"/v2/{name}/tags/list").body) == {"name": name, "tags": ["v1"]}


def test_a_range_of_a_blob_can_be_read(aws: Aws) -> None:
    name, image = repository(aws, "range"), Image("a range of this")
    image.push(aws, name, "v1")
    path = f"/v2/{name}/blobs/{digest(image.layer)}"
    part = aws.request("GET", path, headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, image.layer[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(image.layer)}"
    beyond = aws.request("GET", path, headers={"Range": "bytes=999999-"})
    assert (beyond.status, beyond.code) == (416, "RANGE_INVALID")


def test_a_push_to_an_absent_repository_is_refused(aws: Aws) -> None:
    answer = Image("nowhere").push(aws, "no/such/repository", "v1")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")
    assert "'no/such/repository' does not exist" in answer.message


def test_an_upload_may_come_in_chunks(aws: Aws) -> None:
    name, content = repository(aws, "chunks"), b"x" * 3_000_000
    location = aws.request("POST", f"/v2/{name}/blobs/uploads/").headers["location"]
    first = aws.request("PATCH", location, iter([content[:1_000_000]]), encode_chunked=True)
    assert (first.status, first.headers["range"]) == (202, "0-999999")
    second = aws.request("PATCH", location, content[1_000_000:], {"Content-Range": f"1000000-{len(content) - 1}"})
    assert (second.status, second.headers["range"]) == (202, f"0-{len(content) - 1}")
    assert aws.request("GET", location).headers["range"] == f"0-{len(content) - 1}"
    assert aws.request("PUT", f"{location}?digest={digest(content)}").status == 201
    assert aws.request("HEAD", f"/v2/{name}/blobs/{digest(content)}").headers["content-length"] == str(len(content))


def test_a_chunk_that_leaves_a_gap_is_refused(aws: Aws) -> None:
    name = repository(aws, "gap")
    location = aws.request("POST", f"/v2/{name}/blobs/uploads/").headers["location"]
    answer = aws.request("PATCH", location, b"late", {"Content-Range": "10-13"})
    assert (answer.status, answer.code) == (416, "BLOB_UPLOAD_INVALID")


def test_an_upload_may_be_one_request(aws: Aws) -> None:
    name, content = repository(aws, "one"), b"all of it, at once"
    assert aws.request("POST", f"/v2/{name}/blobs/uploads/?digest={digest(content)}", content).status == 201
    assert aws.request("GET", f"/v2/{name}/blobs/{digest(content)}").body == content


def test_a_blob_is_mounted_from_another_repository(aws: Aws) -> None:
    source, target, content = repository(aws, "mount/a"), repository(aws, "mount/b"), b"mounted"
    aws.request("POST", f"/v2/{source}/blobs/uploads/?digest={digest(content)}", content)
    mounted = aws.request("POST", f"/v2/{target}/blobs/uploads/?mount={digest(content)}&from={source}")
    assert mounted.status == 201
    absent = aws.request("POST", f"/v2/{target}/blobs/uploads/?mount={digest(b'absent')}&from={source}")
    assert absent.status == 202


def test_content_with_another_digest_is_refused_and_not_kept(aws: Aws) -> None:
    name, announced = repository(aws, "liar"), digest(b"what was announced")
    before = set((aws.state / "blobs" / "uploads").iterdir())
    answer = aws.request("POST", f"/v2/{name}/blobs/uploads/?digest={announced}", b"what was sent")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert digest(b"what was sent") in answer.message
    assert aws.request("HEAD", f"/v2/{name}/blobs/{announced}").status == 404
    assert aws.request("HEAD", f"/v2/{name}/blobs/{digest(b'what was sent')}").status == 404
    assert set((aws.state / "blobs" / "uploads").iterdir()) == before


def test_a_manifest_with_absent_blobs_is_refused(aws: Aws) -> None:
    name, image = repository(aws, "hollow"), Image("never pushed")
    answer = aws.request("PUT", f"/v2/{name}/manifests/v1", image.manifest, {"Content-Type": DOCKER})
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert digest(image.layer) in answer.message
    with pytest.raises(ClientError, match="LayersNotFoundException"):
        aws.client("ecr").put_image(repositoryName=name, imageManifest=image.manifest.decode(), imageTag="v1")


def test_an_index_of_absent_manifests_is_refused(aws: Aws) -> None:
    name = repository(aws, "index")
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"digest": digest(b"absent")}]}).encode()
    answer = aws.request("PUT", f"/v2/{name}/manifests/v1", body, {"Content-Type": INDEX})
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"schemaVersion": 2}', b'{"config": {}, "layers": [{}]}'])
def test_a_malformed_manifest_is_refused(aws: Aws, body: bytes) -> None:
    answer = aws.request("PUT", f"/v2/{repository(aws, 'malformed')}/manifests/v1", body)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


def test_a_manifest_under_another_digest_is_refused_and_not_kept(aws: Aws) -> None:
    name, image = repository(aws, "misnamed"), Image("misnamed")
    image.push(aws, name, "v1")
    other = Image("another")
    other.push(aws, repository(aws, "misnamed-other"), "v1")
    answer = aws.request("PUT", f"/v2/{name}/manifests/{digest(b'x')}", other.manifest, {"Content-Type": DOCKER})
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert len(aws.client("ecr").describe_images(repositoryName=name)["imageDetails"]) == 1


def test_an_immutable_tag_refuses_a_second_push_even_of_the_same_digest(aws: Aws) -> None:
    name, image = repository(aws, "immutable", imageTagMutability="IMMUTABLE"), Image("first")
    assert image.push(aws, name, "v1").status == 201
    for second in (image, Image("second")):
        answer = second.push(aws, name, "v1")
        assert (answer.status, answer.code) == (400, "TAG_INVALID")
        assert answer.message == (
            "The image tag 'v1' already exists in the 'immutable' repository and cannot be overwritten because "
            "the tag is immutable."
        )
    assert image.push(aws, name, "v2").status == 201
    with pytest.raises(ClientError, match="ImageTagAlreadyExistsException"):
        aws.client("ecr").put_image(repositoryName=name, imageManifest=Image("second").manifest.decode(), imageTag="v1")


def test_exclusion_filters_turn_a_tags_mutability_round(aws: Aws) -> None:
    name = repository(
        aws,
        "filtered",
        imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
        imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "latest*"}],
    )
    assert Image("one").push(aws, name, "latest").status == 201
    assert Image("two").push(aws, name, "latest").status == 201
    assert Image("one").push(aws, name, "v1").status == 201
    assert Image("two").push(aws, name, "v1").code == "TAG_INVALID"


def test_a_mutable_tag_moves_and_leaves_the_old_image_untagged(aws: Aws) -> None:
    name, old, new = repository(aws, "mutable"), Image("old"), Image("new")
    for image in (old, old, new):
        assert image.push(aws, name, "v1").status == 201
    details = aws.client("ecr").describe_images(repositoryName=name)["imageDetails"]
    tags = {each["imageDigest"]: each.get("imageTags") for each in details}
    assert tags == {digest(old.manifest): None, digest(new.manifest): ["v1"]}
    assert aws.request("GET", f"/v2/{name}/manifests/{digest(old.manifest)}").body == old.manifest
    assert aws.request("GET", f"/v2/{name}/manifests/v1").body == new.manifest


def test_a_repository_that_is_not_empty_is_deleted_only_by_force(aws: Aws) -> None:
    name, ecr = repository(aws, "full"), aws.client("ecr")
    Image("full").push(aws, name, "v1")
    with pytest.raises(ClientError, match="RepositoryNotEmptyException"):
        ecr.delete_repository(repositoryName=name)
    ecr.delete_repository(repositoryName=name, force=True)
    assert aws.request("GET", f"/v2/{name}/manifests/v1").code == "NAME_UNKNOWN"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/store/blobs/../../../../etc/passwd",
        "/v2/store/blobs/sha256:../../ready.json",
        "/v2/store/blobs/sha256%3A..%2F..%2Fready.json",
        "/v2/../../etc/passwd/blobs/sha256:" + "0" * 64,
        "/v2/store/blobs/uploads/../../../ready.json",
        "/v2/store/manifests/../../../../etc/passwd",
        "//v2/store/blobs/sha256:" + "0" * 64,
    ],
)
def test_no_path_leaves_the_store(aws: Aws, path: str) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE", "POST"):
        answer = aws.request(method, path, b"content")
        assert 400 <= answer.status < 500, (method, answer)
        assert b"root:" not in answer.body
        assert b'"pid"' not in answer.body


@pytest.mark.parametrize("wanted", ["sha256:../../../x", "sha512:" + "0" * 128, "x", "sha256:" + "0" * 63 + "g"])
def test_an_upload_cannot_choose_its_file(aws: Aws, wanted: str) -> None:
    name, uploads = repository(aws, "chooser"), aws.state / "blobs" / "uploads"
    before = set(uploads.iterdir())
    answer = aws.request("POST", f"/v2/{name}/blobs/uploads/?digest={wanted}", b"content")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert set(uploads.iterdir()) == before


def test_ecr_tells_the_registrys_own_address_and_cloudformation_awss(aws: Aws) -> None:
    name = repository(aws, "addressed")
    described = aws.client("ecr").describe_repositories(repositoryNames=[name])["repositories"][0]
    assert described["repositoryUri"] == f"127.0.0.1:{aws.port}/{name}"
    assert described["repositoryArn"] == f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/{name}"
    assert described["imageTagMutability"] == "MUTABLE"


def test_blobs_survive_a_restart_and_repositories_do_not(start_aws: Callable[..., Aws]) -> None:
    first, image = start_aws(), Image("kept")
    image.push(first, repository(first, "kept"), "v1")
    assert first.stop() == 0
    second = start_aws()
    assert second.request("HEAD", f"/v2/kept/blobs/{digest(image.layer)}").status == 404
    repository(second, "kept")
    assert second.request("HEAD", f"/v2/kept/blobs/{digest(image.layer)}").status == 200
    assert second.request("HEAD", "/v2/kept/manifests/v1").status == 404
    assert image.push(second, "kept", "v1").status == 201


def test_an_oci_image_can_be_pushed(aws: Aws) -> None:
    name, image = repository(aws, "oci"), Image("oci", OCI)
    assert image.push(aws, name, "v1").status == 201
    assert aws.request("GET", f"/v2/{name}/manifests/v1").headers["content-type"] == OCI


def test_what_the_embedded_aws_cannot_do_is_a_client_error_and_not_repeated(aws: Aws) -> None:
    client = boto3.client(
        "ecr", endpoint_url=aws.url, region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t"
    )
    with pytest.raises(ClientError, match="NotImplemented") as caught:
        client.get_account_setting(name="BLOB_MOUNTING")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.response["ResponseMetadata"]["RetryAttempts"] == 0
