"""How AWS and TLS say that the clock of this machine is wrong, which their codes do not tell from wrong credentials."""

from __future__ import annotations

import re

_WORDS = re.compile(
    r"Signature expired|Signature not yet current|RequestTimeTooSkewed|RequestExpired|certificate is not yet valid|"
    r"difference between the request time and the current time is too large"
)
"""From services' error texts: SigV4 allows 5 minutes and S3 15; OpenSSL compares a certificate's days."""

REMEDY = "set the clock: sudo timedatectl set-ntp true, then: date"


def is_wrong(said: str) -> bool:
    """Whether an error says that the clock is wrong."""
    return _WORDS.search(said) is not None
