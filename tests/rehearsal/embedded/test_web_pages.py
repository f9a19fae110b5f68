"""A web page that a browser shows beside a rehearsal can neither use the embedded AWS nor read from it."""

from __future__ import annotations

import http.client

import pytest

QUERY = "/?Action=ListUsers&Version=2010-05-08&X-Amz-Credential=test/20260101/us-east-1/iam/aws4_request"


def ask(aws, method="GET", path="/_embedded/left", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", aws.port, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers
    finally:
        connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Host": "rebound.example.com:4566"},
        {"Host": "localhost.example.com"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", QUERY), ("POST", "/"), ("OPTIONS", "/"), ("GET", "/v2/"), ("GET", "/_embedded/left")]
)
def test_a_page_is_refused_whatever_it_asks_for(aws, method, path, headers):
    status, body, found = ask(aws, method, path, **headers)
    assert status == 403
    assert body.startswith("The embedded AWS answers programs on this machine only")
    assert "access-control-allow-origin" not in found


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "bucket.localhost:80", "127.0.0.1", "[::1]:80", "10.0.0.2"]
)
def test_programs_are_answered_by_each_name_of_this_machine(aws, host):
    assert ask(aws, Host=host)[0] == 200


def test_a_person_may_type_its_address(aws):
    assert ask(aws, **{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"})[0] == 200
