"""One form of bytes for every value, and one digest of it: SHA-256 over RFC 8785 (JCS).

``rfc8785`` is the rule. Almost every value is written by the few lines below instead, several times as fast; whatever
they don't know (a number with an exponent, a type derived from one of JSON's, something without such a form) is left to
it, so that it alone refuses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from json.encoder import encode_basestring as _quoted  # escapes what RFC 8785 escapes, and nothing else; in C
from typing import Any, Final

import rfc8785

from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Digest

_MAX_INTEGER: Final = (1 << 53) - 1


def canonical_bytes(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """The RFC 8785 form of a JSON value.

    Raises:
        MalformedMessage: if the value has no such form: an integer beyond ±(2⁵³ − 1), NaN, infinity,
            text with a lone surrogate, or a type that JSON does not have.
    """
    try:
        try:
            return _text(value).encode()
        except (TypeError, UnicodeError, RecursionError):  # a key that is no text, half a surrogate pair
            return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError) as error:
        raise MalformedMessage(f"no canonical form (RFC 8785): {error}") from error


Places = tuple[tuple[str, str], ...]
"""The names of an object's members in canonical order, each with what stands before its value."""


def places(names: Iterable[str]) -> Places:
    """The places of an object whose members always have these names. In ASCII, as our own are."""
    return tuple(
        (name, f"{'{' if number == 0 else ','}{_quoted(name)}:") for number, name in enumerate(sorted(names))
    )


def object_bytes(values: dict[str, Any], where: Places) -> bytes | None:
    """The RFC 8785 form of some members of an object; None if one of them must be left to ``rfc8785``."""
    try:
        return _members(values, where).encode()
    except (rfc8785.CanonicalizationError, TypeError, UnicodeError, RecursionError):
        return None


def digest(value: Any) -> Digest:  # noqa: ANN401 - any JSON value
    """SHA-256 over the canonical form of a JSON value."""
    return digest_of(canonical_bytes(value))


def digest_of(form: bytes) -> Digest:
    """SHA-256 over a value that is in its canonical form already."""
    return Digest(hashlib.sha256(form).hexdigest())


def _text(value: Any) -> str:  # noqa: ANN401
    return _WRITERS.get(type(value), _message)(value)


def _message(value: Any) -> str:  # noqa: ANN401
    where: Places | None = getattr(type(value), "PLACES", None)  # a message within a message
    return _members(vars(value), where) if where is not None else _by_the_rule(value)


def _members(values: dict[str, Any], where: Places) -> str:
    if not where:
        return "{}"
    writer = _WRITERS.get
    written = [before + writer(type(values[name]), _message)(values[name]) for name, before in where]
    return "".join(written) + "}"


def _object(value: dict[str, Any]) -> str:
    keys = sorted(value)
    if keys and not "".join(keys).isascii():
        # By UTF-16, which differs from the order of code points where some lie beyond the first plane.
        keys.sort(key=_utf_16)
    return "{" + ",".join([_quoted(key) + ":" + _text(value[key]) for key in keys]) + "}"


def _array(value: list[Any] | tuple[Any, ...]) -> str:
    write = _ARRAYS.get(type(value[0])) if value else None
    if write is not None and len(set(map(type, value))) == 1:
        return "[" + write(value) + "]"
    return "[" + ",".join(map(_text, value)) + "]"


def _strings(value: Sequence[str]) -> str:
    return ",".join(map(_quoted, value))


def _integers(value: Sequence[int]) -> str:
    if min(value) >= -_MAX_INTEGER and max(value) <= _MAX_INTEGER:
        return ",".join(map(repr, value))
    return ",".join(map(_integer, value))


def _floats(value: Sequence[float]) -> str:
    shown = ",".join(map(repr, value))
    if "e" in shown or "n" in shown or ".0" in shown:  # one of them may have another form here than in Python
        return ",".join(map(_float, value))
    return shown


def _integer(value: int) -> str:
    if -_MAX_INTEGER <= value <= _MAX_INTEGER:
        return repr(value)
    return _by_the_rule(value)


def _float(value: float) -> str:
    shown = repr(value)
    if "e" in shown or "n" in shown:  # an exponent; infinity or NaN
        return _by_the_rule(value)
    return shown.removesuffix(".0") if value else "0"  # zero has no sign


def _by_the_rule(value: Any) -> str:  # noqa: ANN401
    return rfc8785.dumps(value).decode()


def _utf_16(key: str) -> bytes:
    return key.encode("utf-16-be")


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    str: _quoted,
    dict: _object,
    list: _array,
    tuple: _array,
    int: _integer,
    float: _float,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
}
_ARRAYS: Final[dict[type, Callable[[Any], str]]] = {str: _strings, int: _integers, float: _floats}
