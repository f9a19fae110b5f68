"""Parser for multipart/form-data, as browsers, curl and OpenAI's clients send it (RFC 7578).

It replaces the usual package because the whole body is in memory already (up to the limit of one request), so that no
streaming parser is needed, and because that package's maintained releases no longer install on Python 3.10.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import RequestError

MAX_PARTS = 64
"""Maximum number of parts in a form."""

MAX_HEADER_BYTES = 8 * 1024
"""Maximum size of the headers of a part."""

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}")
_FOLD = re.compile(r"\r?\n[ \t]+")
_PARAMETER = re.compile(r""";\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]*))""", re.DOTALL)
"""A parameter of a header. The email package takes quadratic time for a header of semicolons: seconds for 64 KB."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One field or file of a form."""

    name: str

    content_type: str | None

    is_file: bool
    """Whether it has a file name."""

    data: bytes


def parse_form(body: bytes, content_type: str) -> list[Part]:
    """Split a form into its parts; 400 if it is invalid."""
    boundary = _parameters(content_type).get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise malformed("its content type has no valid boundary")
    parts: list[Part] = []
    for head, data in _split(body, b"--" + boundary.encode()):
        if len(parts) == MAX_PARTS:
            raise malformed(f"it has more than {MAX_PARTS} parts")
        headers = _headers(head)
        disposition = headers.get("content-disposition", "")
        fields = _parameters(disposition)
        name = fields.get("name")
        if name is None or disposition.partition(";")[0].strip().lower() != "form-data":
            raise malformed('a part has no header Content-Disposition: form-data; name="…"')
        is_file = not fields.keys().isdisjoint(("filename", "filename*"))
        parts.append(Part(name=name, content_type=headers.get("content-type"), is_file=is_file, data=data))
    return parts


def malformed(problem: str) -> RequestError:
    """Make the error for an invalid form."""
    return RequestError(
        400,
        "malformed-form",
        f"the body is not a valid form ({problem}): send multipart/form-data with a part 'file' or 'inputs' and "
        "a part for each parameter, and let your HTTP client write it",
    )


def _split(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return headers and content of each part; each byte is scanned once, and each content copied once."""
    position = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if position == 1:
        raise malformed("the boundary of its content type is not in it")
    while True:
        position += len(delimiter)
        if body.startswith(b"--", position):
            return
        line_end = body.find(b"\r\n", position, position + MAX_HEADER_BYTES)
        if line_end < 0 or body[position:line_end].strip(b" \t"):
            raise malformed("it ends in the middle")
        # search from the end of the delimiter's line, since a part may have no headers
        head_end = body.find(b"\r\n\r\n", line_end, line_end + MAX_HEADER_BYTES)
        if head_end < 0:
            raise malformed(f"the headers of a part do not end within {MAX_HEADER_BYTES} bytes")
        end = body.find(b"\r\n" + delimiter, head_end + 2)
        if end < 0:
            raise malformed("it ends in the middle")
        yield body[line_end + 2 : head_end], body[head_end + 4 : end]
        position = end + 2


def _headers(block: bytes) -> dict[str, str]:
    """Return headers by their names in lower case; of one that is given twice, the first."""
    try:
        text = block.decode()  # browsers send names that are not ASCII as UTF-8
    except UnicodeDecodeError:
        raise malformed("the headers of a part are not UTF-8") from None
    lines = (line.partition(":") for line in reversed(_FOLD.sub(" ", text).split("\n")))
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _parameters(header: str) -> dict[str, str]:
    """Return the parameters of a header by their names in lower case; of one that is given twice, the first."""
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(header):
        found.setdefault(name.lower(), plain or re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
    return found
