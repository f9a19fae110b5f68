"""What CodeBuild runs for `CloudBuild`: builds an image from its context, pushes it, and tells CloudFormation.

It needs Docker with buildx (or what CDK_DOCKER names), Python 3.9 or newer and boto3, and nothing of this package. Its
arguments are in the variable ARGUMENTS. An image that its repository has under the tag is not built again.
`extended-dlc sbom` uses its functions for bills of materials.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
"""The one media type that SageMaker takes."""

LONGEST_REASON = 1000
"""What of a reason is sent to CloudFormation, in characters."""

LAST_LINES = 15
SEVERITIES = ("UNDEFINED", "INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL")
SCAN_SECONDS = 900

_ECR = re.compile(r"(?P<host>(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z0-9.-]+)/.+")


class BuildError(Exception):
    """Why there is no image, with what to do."""


def say(what: str) -> None:
    """A line of the build's log."""
    print(what, flush=True)


class Docker:
    """Docker's command line, with the last lines of what it says, and an end by the clock."""

    def __init__(self, deadline: float, program: str) -> None:
        self._deadline = deadline
        self._program = program
        self.tail: deque[str] = deque(maxlen=LAST_LINES)

    def output_options(self) -> list[str]:
        """How to ask for Docker's media types; podman has a variable for it."""
        version = subprocess.run(  # noqa: S603 - as below
            [self._program, "--version"], capture_output=True, text=True, check=False
        )
        return [] if "podman" in version.stdout else ["--output=type=docker,oci-mediatypes=false"]

    def read(self, *arguments: str) -> str:
        """The standard output of a command; `BuildError` where it fails."""
        done = self._run(*arguments)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:]
            raise BuildError(f"'docker {arguments[0]}' failed{hint(lines)}: {' | '.join(lines)}")
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - a list of arguments, no shell
            [self._program, *arguments], capture_output=True, text=True, check=False
        )

    def run(self, *arguments: str, given: str | None = None) -> None:
        """Run a command and show what it prints; `BuildError` where it fails, or where the time is up."""
        environment = {
            **os.environ,
            "DOCKER_BUILDKIT": "1",
            # an attestation makes an index of the manifest, which SageMaker refuses
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
            "BUILDAH_FORMAT": "docker",
        }
        process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            [self._program, *arguments],
            env=environment,
            stdin=subprocess.PIPE if given is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        left = self._deadline - time.monotonic()
        clock = threading.Timer(max(left, 0), process.kill)
        clock.start()
        try:
            if given is not None and process.stdin is not None:
                process.stdin.write(given)
                process.stdin.close()
            for line in process.stdout or ():
                say(line.rstrip())
                self.tail.append(line.strip())
            code = process.wait()
        finally:
            clock.cancel()
        if time.monotonic() >= self._deadline:
            raise BuildError(f"the time is up in 'docker {arguments[0]}': give CloudBuild a longer timeout_minutes")
        if code != 0:
            raise BuildError(f"'docker {arguments[0]}' failed{hint(self.tail)}: {' | '.join(self.tail)}")


def hint(lines: Iterable[str]) -> str:
    """What to change, where the lines say."""
    text = "\n".join(lines)
    if "no space left on device" in text:
        return " (the disk is full: give CloudBuild a larger compute)"
    if re.search(r"403 Forbidden|no basic auth|denied:|not authorized", text):
        return " (a registry refuses the role of the build: let it pull the base and push to the repository)"
    if re.search(r"i/o timeout|TLS handshake timeout|Client\.Timeout|Temporary failure in name", text):
        return " (a host is out of reach: the build's VPC needs a way to the registry and to the package index)"
    if "toomanyrequests" in text:
        return " (the registry of the base limits pulls: mirror the base into a repository of your own)"
    return ""


class Repository:
    """A repository of ECR."""

    def __init__(self, uri: str) -> None:
        found = _ECR.fullmatch(f"{uri}")
        self.uri = uri
        self.name = uri.partition("/")[2]
        self.region = found["region"] if found else None
        self._ecr = client("ecr", self.region)

    def image(self, tag: str) -> tuple[str, str] | None:
        """Digest and media type of the image with this tag; None where there is none."""
        try:
            answer = self._ecr.describe_images(repositoryName=self.name, imageIds=[{"imageTag": tag}])
        except self._ecr.exceptions.ImageNotFoundException:
            return None
        (image,) = answer["imageDetails"]
        return image["imageDigest"], image.get("imageManifestMediaType", DOCKER_MANIFEST)

    def newest(self, tag: str) -> str | None:
        """The digest of the newest image that was built for this tag: a later rebuild's, where there was one."""
        pages = self._ecr.get_paginator("describe_images").paginate(
            repositoryName=self.name, filter={"tagStatus": "TAGGED"}
        )
        images = [image for page in pages for image in page["imageDetails"]]
        rebuilt = [image for image in images if any(each.startswith(f"{tag}-") for each in image.get("imageTags", ()))]
        return max(rebuilt, key=lambda image: image["imagePushedAt"])["imageDigest"] if rebuilt else None

    def findings(self, digest: str, deadline: float) -> list[tuple[str, str]]:
        """Name and severity of each vulnerability that ECR's scan finds; `BuildError` where there is no scan."""
        named = {"repositoryName": self.name, "imageId": {"imageDigest": digest}}
        while True:
            try:
                pages = list(self._ecr.get_paginator("describe_image_scan_findings").paginate(**named))
                status, why = pages[0]["imageScanStatus"]["status"], pages[0]["imageScanStatus"].get("description", "")
            except self._ecr.exceptions.ScanNotFoundException:
                pages, status, why = [], "PENDING", "no scan was started"
            if status in ("COMPLETE", "ACTIVE"):
                return [found for page in pages for found in _found(page["imageScanFindings"])]
            if status not in ("PENDING", "IN_PROGRESS") or time.monotonic() > deadline:
                raise BuildError(
                    f"ECR's scan of the image ended as {status} ({why}), so that nobody knows what is in it: turn on "
                    "scanning for the repository, or leave the gate out"
                )
            time.sleep(5)


def _found(findings: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for each in findings.get("findings", ()):
        yield str(each["name"]), str(each["severity"])
    for each in findings.get("enhancedFindings", ()):
        details = each.get("packageVulnerabilityDetails", {})
        yield str(details.get("vulnerabilityId", each.get("title", "?"))), str(each.get("severity", "UNDEFINED"))


def check_findings(
    findings: Iterable[tuple[str, str]], *, fail_on: str, allowed: Sequence[str], today: str
) -> Iterable[str]:
    """Yield what the gate does not let pass: findings of this severity or worse that no entry allows today.

    :param allowed: `CVE-2026-1:2027-01-31`, the last day that it is allowed on.
    """
    until = dict(entry.rsplit(":", 1) for entry in allowed)
    least = SEVERITIES.index(fail_on)
    for name, severity in sorted(set(findings)):
        if severity in SEVERITIES and SEVERITIES.index(severity) < least:
            continue
        if name not in until:
            yield f"{name} ({severity})"
        elif until[name] < today:
            yield f"{name} ({severity}; it was allowed until {until[name]})"


LISTING = """
import json, sys
from importlib.metadata import distributions
found = {}
for each in distributions():
    name = each.metadata["Name"]
    if name:
        classifiers = [line for line in each.metadata.get_all("Classifier") or () if line.startswith("License ::")]
        found.setdefault(name, [name, each.version, each.metadata["License-Expression"], classifiers])
print(json.dumps({"python": sys.version.split()[0], "packages": sorted(found.values())}))
"""
"""What an image runs to list its Python packages, from the same metadata as `pip inspect`; vLLM's images lack pip."""

_EITHER = 'if command -v python >/dev/null; then exec python -B -c "$0"; else exec python3 -B -c "$0"; fi'

SCOPE = "Python packages alone; the operating system, CUDA and its drivers are AWS's part, which ECR's scan looks at"


def list_packages(docker: Docker, reference: str) -> dict[str, Any]:
    """The Python version of an image, and name, version and licence of each of its packages."""
    printed = docker.read("run", "--rm", "--network=none", "--entrypoint=/bin/sh", reference, "-c", _EITHER, LISTING)
    lines = [line for line in printed.splitlines() if line.startswith('{"python"')]
    if not lines:
        raise BuildError(f"{reference} does not list its packages: it printed {printed[:200]!r}")
    listed: dict[str, Any] = json.loads(lines[-1])
    return listed


def bill_of_materials(
    listed: Mapping[str, Any], *, image: str, base: str | None, base_digest: str | None, made: str
) -> dict[str, Any]:
    """The packages of an image as a bill of materials: CycloneDX 1.6.

    :param image: The reference of the image, with its digest where that is known.
    :param made: When it was made, as ISO 8601.
    """
    repository, _, version = image.rpartition("@" if "@" in image else ":")
    about = {"scope": SCOPE, "python": listed["python"], "base": base, "base-digest": base_digest}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, image)}",
        "version": 1,
        "metadata": {
            "timestamp": made,
            "tools": {"components": [{"type": "application", "name": "extended-dlc"}]},
            "component": {"type": "container", "bom-ref": image, "name": repository or image, "version": version},
            "properties": [
                {"name": f"extended-dlc:{name}", "value": value} for name, value in about.items() if value is not None
            ],
        },
        "components": [_component(*package) for package in listed["packages"]],
        # what is listed is not all that is in the image
        "compositions": [{"aggregate": "incomplete", "assemblies": [image]}],
    }


def _component(name: str, version: str, expression: str | None, classifiers: Sequence[str]) -> dict[str, Any]:
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version, safe='')}"
    licences: list[dict[str, Any]] = [{"license": {"name": each.rpartition(" :: ")[2]}} for each in classifiers]
    if expression:
        licences = [{"expression": expression}]
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return {**component, "licenses": licences} if licences else component


def property_of(bill: Mapping[str, Any], name: str) -> str | None:
    """A property of the image that its bill of materials names, as `base-digest`."""
    properties = bill["metadata"].get("properties", ())
    return next((str(each["value"]) for each in properties if each["name"] == f"extended-dlc:{name}"), None)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What changed in packages from one bill of materials to another."""
    before, after = ({each["purl"].rpartition("@")[0]: each for each in bill["components"]} for bill in (old, new))
    both = [(before[purl], after[purl]) for purl in sorted(before.keys() & after.keys())]
    return {
        "from": old["metadata"]["component"]["bom-ref"],
        "to": new["metadata"]["component"]["bom-ref"],
        "base": [property_of(bill, "base-digest") or property_of(bill, "base") for bill in (old, new)],
        "changed": [
            {"name": then["name"], "from": then["version"], "to": now["version"]}
            for then, now in both
            if then["version"] != now["version"]
        ],
        "added": [
            {"name": after[purl]["name"], "version": after[purl]["version"]}
            for purl in sorted(after.keys() - before.keys())
        ],
        "removed": [
            {"name": before[purl]["name"], "version": before[purl]["version"]}
            for purl in sorted(before.keys() - after.keys())
        ],
    }


def change_lines(changes: Mapping[str, Any]) -> list[str]:
    """The changes for a person, a line each."""
    counts = ", ".join(f"{len(changes[kind])} {kind}" for kind in ("changed", "added", "removed"))
    return [
        f"packages since {changes['from']}: {counts}",
        *(f"  {each['name']} {each['from']} -> {each['to']}" for each in changes["changed"]),
        *(f"  {each['name']} {each['version']} is new" for each in changes["added"]),
        *(f"  {each['name']} {each['version']} is gone" for each in changes["removed"]),
    ]


class Records:
    """Bills of materials in S3: `DIGEST.cdx.json`, `DIGEST.changes.json` and `latest.cdx.json`, below the image's name.

    The colon of a digest is a hyphen in these names.
    """

    def __init__(self, bucket: str, repository: str) -> None:
        self._s3 = client("s3")
        self._bucket, self._prefix = bucket, repository

    def get(self, name: str) -> dict[str, Any] | None:
        """A bill of materials; None where there is none."""
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}.cdx.json")
        except self._s3.exceptions.NoSuchKey:
            return None
        bill: dict[str, Any] = json.loads(answer["Body"].read())
        return bill

    def put(self, name: str, kind: str, content: Mapping[str, Any]) -> None:
        body = json.dumps(content, indent=1).encode()
        key = f"{self._prefix}/{name}.{kind}.json"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/json")
        say(f"s3://{self._bucket}/{key} is written")


def keep_bill(given: argparse.Namespace, docker: Docker, *, tag: str, digest: str, base_digest: str | None) -> None:
    """Write the image's bill of materials, and what changed since the latest one, to the bucket of records."""
    repository = Repository(given.repository)
    records = Records(given.records, repository.name)
    name = digest.replace(":", "-")
    if records.get(name) is not None:
        return
    log_in(docker, f"{given.repository}:{tag}")
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    bill = bill_of_materials(
        list_packages(docker, f"{given.repository}:{tag}"),
        image=f"{given.repository}@{digest}",
        base=base_of(given),
        base_digest=base_digest,
        made=made,
    )
    latest = records.get("latest")
    records.put(name, "cdx", bill)
    if latest is not None:
        changes = compare(latest, bill)
        records.put(name, "changes", changes)
        for line in change_lines(changes):
            say(line)


def name_latest(given: argparse.Namespace, digest: str) -> None:
    """Have `latest` be the bill of the image that is published, which a revert makes an older one."""
    records = Records(given.records, Repository(given.repository).name)
    bill = records.get(digest.replace(":", "-"))
    if bill is not None and bill != records.get("latest"):
        records.put("latest", "cdx", bill)


def base_of(given: argparse.Namespace) -> str:
    """The reference of the base; empty where the build arguments name none."""
    return next((str(each.partition("=")[2]) for each in given.build_arg if each.startswith("BASE_IMAGE=")), "")


def digest_of_base(reference: str) -> str | None:
    """The digest that ECR has under a reference now; None for other registries."""
    if "@" in reference:
        return reference.partition("@")[2]
    found = _ECR.fullmatch(reference)
    if found is None:
        return None
    name, _, tag = reference.partition("/")[2].partition(":")
    answer = client("ecr", found["region"]).batch_get_image(
        registryId=found["account"], repositoryName=name, imageIds=[{"imageTag": tag or "latest"}]
    )
    return next((str(image["imageId"]["imageDigest"]) for image in answer["images"]), None)


def look_for_newer_base(given: argparse.Namespace) -> None:
    """Say whether AWS has a base of a newer release under a tag of its own, and note it in the bucket of records.

    Nothing is built on it: which transformers it can carry is known by the catalogue of a newer extended-dlc.
    """
    reference = base_of(given)
    found = _ECR.fullmatch(reference)
    if found is None or "@" in reference:
        return
    name, _, tag = reference.partition("/")[2].partition(":")
    asked = {"registryId": found["account"], "repositoryName": name, "filter": {"tagStatus": "TAGGED"}}
    try:
        pages = list(client("ecr", found["region"]).get_paginator("list_images").paginate(**asked))
    except Exception as error:
        say(f"the tags of {name} cannot be listed ({type(error).__name__}: {error}): newer bases are not looked for")
        return
    newer = newest_tag(tag, (each.get("imageTag", "") for page in pages for each in page["imageIds"]))
    if newer is not None:
        say(f"AWS has a newer base, {name}:{newer}: deploy with a newer extended-dlc, or name it as base=")
    if given.records:
        today = datetime.now(timezone.utc).date().isoformat()
        content = {"base": reference, "newer": newer, "looked": today}
        Records(given.records, Repository(given.repository).name).put("latest", "base", content)


def newest_tag(tag: str, tags: Iterable[str]) -> str | None:
    """The tag with the newest releases for the same device and the same use; None where `tag` has them itself."""
    kind, now = _releases(tag)
    others = [(each, *_releases(each)) for each in tags]
    newer = [(releases, each) for each, is_of, releases in others if is_of == kind and releases > now]
    # of one release the tag that AWS moves on, and not one of its patches
    return min((each for releases, each in newer if releases == max(newer)[0]), key=len, default=None)


def _releases(tag: str) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """What a tag of AWS's is for, and its releases: the framework's, and that of transformers where it has one."""
    parts = tag.split("-")
    kind = tuple(each for each in parts if each in ("cpu", "gpu", "ec2", "sagemaker", "neuron", "neuronx"))
    versions = [re.fullmatch(r"(?:transformers)?(\d+(?:\.\d+)+)", each) for each in parts[:2]]
    return kind, tuple(tuple(map(int, each[1].split("."))) for each in versions if each)


def is_due(given: argparse.Namespace, rebuild: str | None, base_digest: str | None) -> bool:
    """Whether there is something to build: a scheduled rebuild may be for newer bases alone."""
    if not rebuild or not given.only_for_newer_base or base_digest is None:
        return True
    latest = Records(given.records, Repository(given.repository).name).get("latest")
    return latest is None or property_of(latest, "base-digest") != base_digest


def client(service: str, region: str | None = None) -> Any:
    """A client of one of AWS's services."""
    import boto3  # the build installs it where the machine has none

    return boto3.client(service, region_name=region) if region else boto3.client(service)


def log_in(docker: Docker, reference: str) -> None:
    """Log Docker in to the private ECR registry of a reference; other registries want no log-in of AWS's."""
    found = _ECR.fullmatch(reference)
    if found is None:
        return
    answer = client("ecr", found["region"]).get_authorization_token(registryIds=[found["account"]])
    token = base64.b64decode(answer["authorizationData"][0]["authorizationToken"]).decode()
    user, _, password = token.partition(":")
    docker.run("login", "--username", user, "--password-stdin", found["host"], given=password)


def fetch(source: str, target: Path) -> Path:
    """An object of S3 as a file."""
    where = urlsplit(source)
    client("s3").download_file(where.netloc, where.path.lstrip("/"), str(target))
    return target


def pip_config(given: argparse.Namespace) -> str | None:
    """The pip configuration of the build; None where PyPI is asked as it is."""
    if given.pip_config_secret:
        text = client("secretsmanager").get_secret_value(SecretId=given.pip_config_secret)["SecretString"]
        return str(text)
    index = given.package_index
    if given.code_artifact:
        domain, _, repository = given.code_artifact.partition("/")
        artifacts = client("codeartifact")
        endpoint = artifacts.get_repository_endpoint(domain=domain, repository=repository, format="pypi")
        token = artifacts.get_authorization_token(domain=domain)["authorizationToken"]
        where = urlsplit(endpoint["repositoryEndpoint"])
        index = f"{where.scheme}://aws:{quote(token, safe='')}@{where.netloc}{where.path.rstrip('/')}/simple/"
    return f"[global]\nindex-url = {index}\n" if index else None


def secrets_of(given: argparse.Namespace, folder: Path) -> list[str]:
    """Docker's options for the secrets that the Dockerfile mounts; they stay in no layer."""
    options = []
    if config := pip_config(given):
        (folder / "pip.conf").write_text(config)
        options.append(f"--secret=id=pip-config,src={folder / 'pip.conf'}")
    if given.ca_bundle:
        options.append(f"--secret=id=ca-bundle,src={fetch(given.ca_bundle, folder / 'ca.pem')}")
    return options


def proxies(given: argparse.Namespace) -> list[str]:
    """The proxy as arguments of the build, which Docker keeps out of the image's history."""
    if not given.proxy:
        return []
    values = {"HTTP_PROXY": given.proxy, "HTTPS_PROXY": given.proxy, "NO_PROXY": given.no_proxy or ""}
    return [f"--build-arg={name}={value}" for key, value in values.items() for name in (key, key.lower())]


def build(given: argparse.Namespace, docker: Docker, tag: str, rebuild: str | None) -> None:
    """Build the image and push it."""
    for reference in dict.fromkeys((base_of(given), f"{given.repository}:{tag}")):
        log_in(docker, reference)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        context = folder / "context"
        with tarfile.open(fetch(given.context, folder / "context.tar.gz")) as archive:
            # made by the deployment from files alone
            archive.extractall(context)  # noqa: S202
        in_files = (each.split("=", 1) for each in given.build_arg_file)
        read = [f"{name}={(context / file).read_text()}" for name, file in in_files]
        arguments = [*given.build_arg, *read, *([f"REBUILD={rebuild}"] if rebuild else [])]
        options = [f"--build-arg={each}" for each in arguments] + proxies(given) + secrets_of(given, folder)
        if given.target:
            options.append(f"--target={given.target}")
        if rebuild:
            options.append("--pull")
        docker.run(
            *("build", "--platform=linux/amd64", *docker.output_options()),
            *(f"--file={context / given.file}", f"--tag={given.repository}:{tag}", *options, str(context)),
        )
    docker.run("push", f"{given.repository}:{tag}")


def provide(given: argparse.Namespace, docker: Docker, rebuild: str | None) -> tuple[str, str]:
    """The tag and the digest of the image, which is built where it is not there; it has passed the gate."""
    repository = Repository(given.repository)
    tag = f"{given.tag}-{re.sub(r'[^0-9A-Za-z]', '', rebuild)}" if rebuild else given.tag
    found = repository.image(tag)
    if found is None or found[1] != DOCKER_MANIFEST:
        build(given, docker, tag, rebuild)
        found = repository.image(tag)
    else:
        say(f"{given.repository}:{tag} is there already")
    if found is None:
        raise BuildError(f"{given.repository} lacks the tag {tag} that was pushed: see CloudTrail")
    digest, media_type = found
    if media_type != DOCKER_MANIFEST:
        raise BuildError(
            f"the manifest that was pushed is {media_type}, and SageMaker takes {DOCKER_MANIFEST} alone: give the "
            "project an image with buildx, which knows --output type=docker,oci-mediatypes=false"
        )
    if given.fail_on:
        today = datetime.now(timezone.utc).date().isoformat()
        findings = repository.findings(digest, time.monotonic() + SCAN_SECONDS)
        refused = list(check_findings(findings, fail_on=given.fail_on, allowed=given.allow, today=today))
        if refused:
            raise BuildError(
                f"the scan finds {len(refused)} of severity {given.fail_on} or worse: {', '.join(refused)}. Rebuild on "
                "a newer base, or allow them for a while"
            )
    return tag, digest


def publish(given: argparse.Namespace, digest: str) -> None:
    """Have the parameters name the image, in each region."""
    for entry in given.parameter:
        region, _, name = entry.partition(":")
        uri = f"{re.sub(r'(?<=[.]ecr[.])[a-z0-9-]+', region, given.repository, count=1)}@{digest}"
        # another account can be let read an advanced one alone (Systems Manager user guide, "Sharing parameters")
        tier = {"Tier": "Advanced"} if given.advanced_parameters else {}
        client("ssm", region).put_parameter(Name=name, Value=uri, Type="String", Overwrite=True, **tier)
        say(f"{name} in {region} names {uri}")


def log_address() -> str:
    """Where the log of this build is: its group outlives a project that a rollback deletes."""
    region = os.environ.get("AWS_REGION", "")
    project = os.environ.get("CODEBUILD_BUILD_ID", "").partition(":")[0]
    stream = os.environ.get("CODEBUILD_LOG_PATH", "")
    if not (region and project and stream):
        return os.environ.get("CODEBUILD_BUILD_URL", "the log of the build")
    host = "console.amazonaws.cn" if region.startswith("cn-") else "console.aws.amazon.com"
    return f"https://{host}/cloudwatch/home?region={region}#logEvent:group=/aws/codebuild/{project};stream={stream}"


def signal(url: str, *, ok: bool, reason: str, data: str = "") -> None:
    """Tell CloudFormation's wait condition."""
    status = "SUCCESS" if ok else "FAILURE"
    body = json.dumps({"Status": status, "UniqueId": "image", "Reason": reason, "Data": data})
    # the address is signed for no content type
    request = urllib.request.Request(url, body.encode(), {"Content-Type": ""}, method="PUT")  # noqa: S310
    urllib.request.urlopen(request, timeout=60).close()  # noqa: S310


def parser() -> argparse.ArgumentParser:
    """What the deployment says."""
    parsed = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parsed.add_argument("--context", required=True, metavar="S3-URI", help="a tar archive with the Dockerfile")
    parsed.add_argument("--file", default="Dockerfile")
    parsed.add_argument("--target")
    parsed.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parsed.add_argument(
        "--build-arg-file", action="append", default=[], metavar="NAME=FILE", help="a file of the context as a value"
    )
    parsed.add_argument("--repository", required=True, metavar="URI")
    parsed.add_argument("--tag", required=True)
    parsed.add_argument("--seconds", type=int, default=3480)
    parsed.add_argument("--pip-config-secret", metavar="ARN")
    parsed.add_argument("--package-index", metavar="URL")
    parsed.add_argument("--code-artifact", metavar="DOMAIN/REPOSITORY")
    parsed.add_argument("--ca-bundle", metavar="S3-URI")
    parsed.add_argument("--proxy", metavar="URL")
    parsed.add_argument("--no-proxy", metavar="HOSTS")
    parsed.add_argument("--fail-on", choices=SEVERITIES)
    parsed.add_argument("--allow", action="append", default=[], metavar="NAME:DATE")
    parsed.add_argument("--parameter", action="append", default=[], metavar="REGION:NAME")
    parsed.add_argument("--advanced-parameters", action="store_true")
    parsed.add_argument("--records", metavar="BUCKET", help="where bills of materials are kept")
    parsed.add_argument("--only-for-newer-base", action="store_true", help="of rebuilds; needs --records")
    parsed.add_argument("--look-for-newer-base", action="store_true", help="say which newer tags AWS has")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, and tell who waits."""
    given = parser().parse_args(shlex.split(os.environ["ARGUMENTS"]) if arguments is None else arguments)
    url, rebuild = os.environ.get("SIGNAL"), os.environ.get("REBUILD") or None
    docker = Docker(time.monotonic() + given.seconds, os.environ.get("CDK_DOCKER") or "docker")
    try:
        if given.look_for_newer_base:
            look_for_newer_base(given)
        base_digest = digest_of_base(base_of(given)) if given.records else None
        if not is_due(given, rebuild, base_digest):
            say(f"{base_of(given)} is still {base_digest}: nothing is built")
            return
        tag, digest = provide(given, docker, rebuild)
        if given.records:
            keep_bill(given, docker, tag=tag, digest=digest, base_digest=base_digest)
        published = digest
        if given.parameter and not rebuild:
            published = Repository(given.repository).newest(tag) or digest
        if given.records:
            name_latest(given, published)
        if given.parameter:
            publish(given, published)
    except Exception as error:
        why = str(error) if isinstance(error, BuildError) else f"{type(error).__name__}: {error}"
        head = f"the image was not built; its log: {log_address()} -- "
        if url:
            signal(url, ok=False, reason=head + _shortened(why, LONGEST_REASON - len(head)))
        sys.exit(f"the image was not built: {why}")
    say(f"{given.repository}:{tag} is {digest}")
    if url:
        signal(url, ok=True, reason=f"{tag} is {digest}", data=digest)


def _shortened(text: str, most: int) -> str:
    """The beginning, which says what failed, and the end, which says why."""
    return text if len(text) <= most else f"{text[:200]} … {text[-(most - 203) :]}"


if __name__ == "__main__":
    main()
