"""`extended-dlc sbom`: what it writes is CycloneDX, by CycloneDX's own library, and what changed since is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from extended_dlc.cli import main
from extended_dlc.images.vulnerabilities import Unreachable, look_up
from extended_dlc.programs.build_image import SCOPE, property_of

IMAGE = "registry/text:cafe"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container engine whose one image has the packages of this Python, and logs a line at its start."""
    program = tmp_path / "engine"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"assert sys.argv[1:6] == ['run', '--rm', '--network=none', '--entrypoint=/bin/sh', {IMAGE!r}], sys.argv\n"
        f"os.environ['PATH'] = {str(Path(sys.executable).parent)!r} + os.pathsep + os.environ['PATH']\n"
        "print('the entry point of a base may print something', flush=True)\n"
        "os.execvp('sh', ['sh', *sys.argv[6:]])\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("CDK_DOCKER", str(program))
    return program


def test_the_bill_of_an_image_is_cyclonedx_and_lists_each_package_once(engine: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["sbom", IMAGE])
    assert done.exit_code == 0, done.output
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.stdout) is None
    bill = json.loads(done.stdout)
    assert property_of(bill, "scope") == SCOPE
    assert property_of(bill, "python") == sys.version.split()[0]
    names = [each["name"] for each in bill["components"]]
    assert {"boto3", "aws-cdk-lib"} <= set(names)
    assert len(names) == len(set(names))
    earlier = tmp_path / "earlier.json"
    (boto3,) = [each for each in bill["components"] if each["name"] == "boto3"]
    now, boto3["purl"], boto3["version"] = boto3["version"], "pkg:pypi/boto3@1.0", "1.0"
    bill["components"] = [each for each in bill["components"] if each["name"] != "pydantic"]
    earlier.write_text(json.dumps(bill))
    file = tmp_path / "sbom.json"
    done = CliRunner().invoke(main, ["sbom", IMAGE, f"--output={file}", f"--since={earlier}"])
    assert (done.exit_code, f"{file}: {len(names)} packages of {IMAGE}" in done.output) == (0, True)
    assert f"packages since {IMAGE}: 1 changed, 1 added, 0 removed" in done.stderr
    assert f"  boto3 1.0 -> {now}" in done.stderr
    earlier.write_text("[]")
    done = CliRunner().invoke(main, ["sbom", IMAGE, f"--since={earlier}"])
    assert (done.exit_code, "is no bill of materials" in done.output) == (1, True)


def test_an_engine_that_says_no_is_quoted_with_the_way_out(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('denied: no basic auth credentials')\n")
    done = CliRunner().invoke(main, ["sbom", IMAGE])
    assert done.exit_code == 1
    assert "denied: no basic auth" in done.output
    assert "extended-dlc login" in done.output
    engine.write_text(f"#!{sys.executable}\nprint('hello')\n")
    assert "does not list its packages" in CliRunner().invoke(main, ["sbom", IMAGE]).output
    monkeypatch.setenv("CDK_DOCKER", "/nowhere/docker")
    done = CliRunner().invoke(main, ["sbom", IMAGE])
    assert (done.exit_code, "name yours in CDK_DOCKER" in done.output) == (1, True)


GHSA, PYSEC, GONE, BARE = "GHSA-aaaa-bbbb-cccc", "PYSEC-2026-1", "GHSA-gone-gone-gone", "PYSEC-2026-2"
ADVISORIES: dict[str, dict[str, Any]] = {
    GHSA: {
        "id": GHSA,
        "summary": "Reads files of the host",
        "aliases": [PYSEC, "CVE-2026-7"],
        "database_specific": {"severity": "HIGH"},
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}],
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "boto3", "purl": "pkg:pypi/boto3"},
                "ranges": [
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]},
                    {"type": "GIT", "events": [{"introduced": "0"}, {"fixed": "c0ffee"}]},
                ],
            }
        ],
    },
    PYSEC: {"id": PYSEC, "details": "The same.", "aliases": [GHSA, "CVE-2026-7"]},
    GONE: {"id": GONE, "withdrawn": "2026-01-02T00:00:00Z"},
    BARE: {"id": BARE, "details": "Stops the process.\nAt length."},
}


@pytest.fixture
def osv() -> Iterator[str]:
    """A service that answers as OSV's documentation describes it: boto3 has three advisories on two pages."""

    class Osv(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/querybatch"
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            assert 0 < len(queries) <= 1000
            assert all("@" in each["package"]["purl"] and "version" not in each for each in queries)
            assert not any("%2B" in each["package"]["purl"] for each in queries), "a local version is nobody's release"
            self.tell({"results": [self.result(each) for each in queries]})

        def result(self, query: dict[str, Any]) -> dict[str, Any]:
            if not query["package"]["purl"].startswith("pkg:pypi/boto3@"):
                return {"vulns": [{"id": BARE, "modified": "2026"}]} if "pydantic@" in query["package"]["purl"] else {}
            if query.get("page_token") == "two":
                return {"vulns": [{"id": GONE, "modified": "2026"}]}
            return {"vulns": [{"id": each, "modified": "2026"} for each in (GHSA, PYSEC)], "next_page_token": "two"}

        def do_GET(self) -> None:
            self.tell(ADVISORIES[self.path.rpartition("/v1/vulns/")[2]])

        def tell(self, answer: dict[str, Any]) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_known_vulnerabilities_are_told_and_added_to_the_bill_and_decide_on_nothing(engine: Path, osv: str) -> None:
    done = CliRunner().invoke(main, ["sbom", IMAGE, "--vulnerabilities", f"--database={osv}"])
    assert done.exit_code == 0, done.output
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(done.stdout) is None
    worst, other = json.loads(done.stdout)["vulnerabilities"]
    assert (worst["id"], worst["recommendation"]) == (GHSA, "fixed in 99.1"), (
        "not PyPA's record of the same, not a commit"
    )
    assert [each["severity"] for each in worst["ratings"]] == ["high"]
    assert (other["id"], other["description"]) == (BARE, "Stops the process.")
    report = " ".join(done.stderr.split())
    assert f"high {GHSA} (CVE-2026-7) in boto3 " in report
    assert "Reads files of the host; fixed in 99.1" in report
    assert f"unknown {BARE} in pydantic " in report
    assert "2 known vulnerabilities in " in report


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>Sign in</html>",
        b"[]",
        b'{"results": 1}',
        b'{"results": []}',
        *(b'{"results": [%s]}' % each for each in (b"[1]", b'"x"', b'{"vulns": 7}', b'{"vulns": [{"name": 1}]}')),
        *(b'{"results": [{"vulns": [{"id": "A"}]}], %s}' % each for each in (b'"affected": 1', b'"severity": 5')),
    ],
)
def test_an_answer_of_another_form_is_said_and_is_no_failure(answer: bytes) -> None:
    class Strange(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    bill = {"components": [{"purl": "pkg:pypi/boto3@1.0"}]}
    with ThreadingHTTPServer(("127.0.0.1", 0), Strange) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+ answered something that is not"):
            look_up(bill, database=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.mark.parametrize("address", ["api.osv.dev", "file:///etc/passwd", "https://", "http://a b"])
def test_an_address_that_is_none_is_refused_before_the_image_is_asked(address: str) -> None:
    done = CliRunner().invoke(main, ["sbom", IMAGE, "--vulnerabilities", f"--database={address}"])
    assert done.exit_code == 2
    assert f"'{address}' is no address: write it with https://" in " ".join(done.stderr.split())


def test_a_database_that_cannot_be_reached_is_said_and_is_no_failure(engine: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        address = f"http://127.0.0.1:{closed.server_port}"
    done = CliRunner().invoke(main, ["sbom", IMAGE, "--vulnerabilities", f"--database={address}"])
    assert done.exit_code == 0
    assert "vulnerabilities" not in json.loads(done.stdout), "packages that nobody looked up are not free of any"
    assert f"known vulnerabilities were not looked up: {address} cannot be reached" in " ".join(done.stderr.split())
