"""One form of bytes for every value, and one digest of it: SHA-256 over RFC 8785 (JCS)."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Digest


def canonical_bytes(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """The RFC 8785 form of a JSON value.

    Raises:
        MalformedMessage: if the value has no such form: an integer beyond ±(2⁵³ − 1), NaN, infinity,
            text with a lone surrogate, or a type that JSON does not have.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError) as error:
        raise MalformedMessage(f"no canonical form (RFC 8785): {error}") from error


def digest(value: Any) -> Digest:  # noqa: ANN401 - any JSON value
    """SHA-256 over the canonical form of a JSON value."""
    return Digest(hashlib.sha256(canonical_bytes(value)).hexdigest())
