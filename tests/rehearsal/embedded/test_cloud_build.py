"""The build spec of `CloudBuild` run as in CodeBuild: a shell, a stub of Docker, and the embedded AWS."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extended_dlc.images.cloud_build import PROGRAM, SPEC
from extended_dlc.rehearsal.embedded.builds import _hearing
from tests.support.embedded import DOCKER, OCI, REGION, Aws, Image, digest

ROOT = Path(__file__).parents[3]

DOCKER_STUB = f"""#!{sys.executable}
import json, os, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
given = None if sys.stdin is None or arguments[0] == "--version" else sys.stdin.read()
secrets = {{a.split("src=")[1]: pathlib.Path(a.split("src=")[1]).read_text() for a in arguments if "src=" in a}}
with (here / "calls").open("a") as calls:
    calls.write(json.dumps({{"arguments": arguments, "given": given, "secrets": list(secrets.values())}}) + "\\n")
if arguments[0] == "build":
    assert pathlib.Path(arguments[-1], "Dockerfile").read_text() == "FROM scratch\\n"
    if os.environ.get("FAILS"):
        print("#8 installing\\nwrite /layer: no space left on device")
        sys.exit(1)
elif arguments[0] == "push":
    from tests.support.embedded import Aws, Image
    host, _, rest = arguments[1].partition("/")
    name, _, tag = rest.partition(":")
    image = Image(os.environ.get("CONTENT", "built"), os.environ["MEDIA_TYPE"])
    done = image.push(Aws(int(host.rpartition(":")[2]), here, None, here), name, tag)
    sys.exit(0 if done.status == 201 else str(done))
elif arguments[0] == "run":
    # the image's Python is this one, with what PYTHONPATH adds
    os.execvp("sh", ["sh", *arguments[arguments.index("-c"):]])
elif arguments[0] == "--version":
    print("Docker version 28.2.2, build e6534b4")
"""

AWS_STUB = f"""#!{sys.executable}
import shutil, sys
assert sys.argv[1:4] == ["s3", "cp", "--quiet"] and sys.argv[4] == "s3://assets/program.py", sys.argv
shutil.copy({str(PROGRAM)!r}, sys.argv[5])
"""


@dataclass
class CodeBuild:
    """A build machine of CodeBuild."""

    aws: Aws
    folder: Path

    def calls(self) -> list[dict[str, Any]]:
        log = self.folder / "calls"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def run(self, *arguments: str, media_type: str = DOCKER, **variables: str) -> tuple[str, list[dict[str, str]]]:
        """The build's log, and the signals that it sent."""
        (self.folder / "calls").unlink(missing_ok=True)
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        with _hearing() as (address, heard):
            environment = {
                **os.environ,
                "PATH": f"{self.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
                "AWS_ENDPOINT_URL": self.aws.url,
                "AWS_REGION": REGION,
                "AWS_DEFAULT_REGION": REGION,
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "CODEBUILD_BUILD_ID": "images:0123",
                "CODEBUILD_LOG_PATH": "0123-stream",
                "MEDIA_TYPE": media_type,
                "PROGRAM": "s3://assets/program.py",
                "ARGUMENTS": " ".join(shlex.quote(each) for each in arguments),
                "SIGNAL": address,
                **variables,
            }
            output, succeeding = "", "1"
            for phase in ("build", "post_build"):
                for command in SPEC["phases"][phase]["commands"]:
                    done = subprocess.run(
                        ["sh", "-c", command],
                        cwd=work,
                        env={**environment, "CODEBUILD_BUILD_SUCCEEDING": succeeding},
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                        check=False,
                    )
                    output += done.stdout
                    if phase == "build" and done.returncode:
                        succeeding = "0"
                        break
        return output, heard


@pytest.fixture
def codebuild(aws: Aws, tmp_path: Path) -> CodeBuild:
    for name, content in (("docker", DOCKER_STUB), ("aws", AWS_STUB)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in (("Dockerfile", b"FROM scratch\n"), (".lock", b"a==1\nb==2")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    aws.client("s3").create_bucket(Bucket="assets")
    aws.client("s3").put_object(Bucket="assets", Key="context.tar.gz", Body=archive.getvalue())
    return CodeBuild(aws, tmp_path)


def test_the_build_spec_builds_pushes_and_signals_the_digest_and_builds_nothing_twice(codebuild: CodeBuild) -> None:
    codebuild.aws.client("ecr").create_repository(repositoryName="cloud/built")
    repository = f"127.0.0.1:{codebuild.aws.port}/cloud/built"
    arguments = (
        "--context=s3://assets/context.tar.gz",
        f"--repository={repository}",
        "--tag=cafe",
        "--build-arg=BASE_IMAGE=763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.6",
        "--build-arg=STOCK_REQUIREMENTS=numpy<2 pillow",
        "--build-arg-file=LOCK=.lock",
        "--package-index=https://mirror.example/simple",
        "--proxy=http://proxy:3128",
    )
    output, heard = codebuild.run(*arguments)
    (signal,) = heard
    assert (signal["Status"], signal["UniqueId"]) == ("SUCCESS", "image"), output
    assert signal["Data"] == digest(Image("built").manifest)
    login, _, build, push = codebuild.calls()
    host = "763104351884.dkr.ecr.us-east-1.amazonaws.com"
    assert login["arguments"] == ["login", "--username", "AWS", "--password-stdin", host]
    assert login["given"] == "763104351884-auth-token"
    assert {"--platform=linux/amd64", "--output=type=docker,oci-mediatypes=false"} <= set(build["arguments"])
    assert {
        "--build-arg=STOCK_REQUIREMENTS=numpy<2 pillow",
        "--build-arg=LOCK=a==1\nb==2",
        "--build-arg=https_proxy=http://proxy:3128",
    } <= set(build["arguments"])
    assert build["secrets"] == ["[global]\nindex-url = https://mirror.example/simple\n"]
    assert push["arguments"] == ["push", f"{repository}:cafe"]
    output, (again,) = codebuild.run(*arguments)
    assert codebuild.calls() == []
    assert again["Data"] == signal["Data"]


def test_a_build_that_fails_signals_the_address_of_its_log_its_last_lines_and_what_to_do(codebuild: CodeBuild) -> None:
    codebuild.aws.client("ecr").create_repository(repositoryName="cloud/failed")
    repository = f"--repository=127.0.0.1:{codebuild.aws.port}/cloud/failed"
    arguments = ("--context=s3://assets/context.tar.gz", repository, "--tag=cafe", "--build-arg=BASE_IMAGE=x/y")
    output, (signal, _) = codebuild.run(*arguments, FAILS="1")
    assert signal["Status"] == "FAILURE"
    assert "region=us-east-1#logEvent:group=/aws/codebuild/images;stream=0123-stream" in signal["Reason"]
    assert "write /layer: no space left on device" in signal["Reason"]
    assert "give CloudBuild a larger compute" in signal["Reason"]
    assert "the image was not built: 'docker build' failed" in output
    _, (refused, _) = codebuild.run(*arguments, media_type=OCI)
    assert "SageMaker takes application/vnd.docker.distribution.manifest.v2+json alone" in refused["Reason"]
    assert len(refused["Reason"]) <= 1000
    # the image exists now, in the form that SageMaker refuses: the next deployment builds it again
    _, (mended,) = codebuild.run(*arguments)
    assert mended["Status"] == "SUCCESS"


def test_a_build_that_never_ran_its_program_signals_too(codebuild: CodeBuild) -> None:
    output, (signal,) = codebuild.run("--context=x", PROGRAM="s3://assets/gone.py")
    assert (signal["Status"], signal["UniqueId"]) == ("FAILURE", "build")
    assert "see the log of the build" in signal["Reason"], output


def test_each_build_leaves_a_bill_of_materials_and_what_changed_and_an_old_base_is_not_built_again(
    codebuild: CodeBuild, tmp_path: Path
) -> None:
    """A rebuild with another release of one package, then one whose base is the same, then one on a newer base."""
    aws = codebuild.aws
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="records")
    for name in ("cloud/billed", "base"):
        aws.client("ecr").create_repository(repositoryName=name)
    base = Image("base of May")
    assert base.push(aws, "base", "2.6").status == 201
    arguments = (
        "--context=s3://assets/context.tar.gz",
        f"--repository=127.0.0.1:{aws.port}/cloud/billed",
        "--tag=cafe",
        "--build-arg=BASE_IMAGE=123456789012.dkr.ecr.us-east-1.amazonaws.com/base:2.6",
        "--records=records",
        f"--parameter={REGION}:/images/billed",
    )
    packages = tmp_path / "packages"

    def bring(name: str, version: str) -> None:
        folder = packages / f"{name}.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        head = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
        (folder / "METADATA").write_text(f"{head}License-Expression: Apache-2.0\n")

    def record(name: str) -> Any:
        return json.loads(s3.get_object(Bucket="records", Key=f"cloud/billed/{name}.json")["Body"].read())

    bring("Sand_Paper", "1.0+cu124")
    output, (signal,) = codebuild.run(*arguments, PYTHONPATH=str(packages))
    assert signal["Status"] == "SUCCESS", output
    first = signal["Data"].replace(":", "-")
    bill = record(f"{first}.cdx")
    properties = {each["name"]: each["value"] for each in bill["metadata"]["properties"]}
    assert properties["extended-dlc:base-digest"] == digest(base.manifest)
    purl = "pkg:pypi/sand-paper@1.0%2Bcu124"
    (paper,) = [each for each in bill["components"] if each["purl"] == purl]
    assert (paper["name"], paper["licenses"]) == ("Sand_Paper", [{"expression": "Apache-2.0"}])
    assert {"boto3", "pydantic"} <= {each["name"] for each in bill["components"]}
    assert f"@{signal['Data']}" in bill["metadata"]["component"]["bom-ref"]
    bring("Sand_Paper", "1.1")
    bring("glue", "2")
    rebuild = {"PYTHONPATH": str(packages), "CONTENT": "rebuilt", "REBUILD": "2026-11-28T03:00:00Z", "SIGNAL": ""}
    output, _ = codebuild.run(*arguments, **rebuild)
    second = digest(Image("rebuilt").manifest)
    changes = record(f"{second.replace(':', '-')}.changes")
    assert changes["from"].endswith(signal["Data"])
    assert changes["changed"] == [{"name": "Sand_Paper", "from": "1.0+cu124", "to": "1.1"}]
    assert (changes["added"], changes["removed"]) == ([{"name": "glue", "version": "2"}], [])
    assert "  Sand_Paper 1.0+cu124 -> 1.1" in output
    assert record("latest.cdx") == record(f"{second.replace(':', '-')}.cdx")
    later = rebuild | {"REBUILD": "2026-12-05T03:00:00Z"}
    assert Image("base of another release").push(aws, "base", "2.7-gpu").status == 201
    assert Image("newer base").push(aws, "base", "2.8").status == 201
    output, _ = codebuild.run(*arguments, "--look-for-newer-base", "--only-for-newer-base", **later)
    assert "AWS has a newer base, base:2.8: deploy with a newer extended-dlc, or name it as base=" in output
    assert record("latest.base")["newer"] == "2.8"
    assert f"base:2.6 is still {digest(base.manifest)}: nothing is built" in output
    assert not any(call["arguments"][0] in ("build", "push") for call in codebuild.calls())
    assert Image("base of June").push(aws, "base", "2.6").status == 201
    output, _ = codebuild.run(*arguments, "--only-for-newer-base", **later | {"CONTENT": "on June"})
    parameter = aws.client("ssm").get_parameter(Name="/images/billed")["Parameter"]["Value"]
    assert parameter.endswith(digest(Image("on June").manifest)), output
    assert record("latest.cdx")["metadata"]["component"]["bom-ref"] == parameter
    # a deployment that changes nothing names the newest build again, and runs no image
    output, (signal,) = codebuild.run(*arguments)
    assert (signal["Status"], codebuild.calls()) == ("SUCCESS", []), output
    assert record("latest.cdx")["metadata"]["component"]["bom-ref"] == parameter
