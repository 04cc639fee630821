"""The two kinds of event that fill a log, parsed in a fraction of the time; all else as ever.

``attempt`` and ``answered`` events that stand exactly as software of today writes them are taken apart by one regular
expression each, which also says that they are in canonical form. Whatever it doesn't know (an optional field left out,
a name beyond ASCII, a number with an exponent) is left to :func:`targon.ledger.parse_event`. So what is accepted, and
what it means, is the same, which tests/audit holds.
"""

from __future__ import annotations

import json
import re
from operator import itemgetter
from typing import Any, ClassVar, Final, NamedTuple

from targon.ledger import Event, parse_event
from targon.protocol.canonical import canonical_bytes
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Digest, Hotkey

_INT: Final = r"(0|[1-9][0-9]{0,14})"
_HEX8: Final = r"([0-9a-f]{16})"
_HEX32: Final = r"([0-9a-f]{64})"
_HEX64: Final = r"([0-9a-f]{128})"
_HOTKEY: Final = r"([1-9A-HJ-NP-Za-km-z]{40,64})"
_TEXT: Final = r"([ !#-\[\]-~]{1,256})"
_BOOL: Final = r"(true|false)"
_SPEED: Final = r"(null|(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,17})?)"

_ATTEMPT: Final = re.compile(
    rf'\{{"block":{_INT},"counted":{_BOOL},"dialect":"(targon/1|greedy|vllm|native)","kind":"attempt",'
    rf'"max_tokens":{_INT},"model":"{_TEXT}","prover":"{_HOTKEY}","purpose":"(challenge|inference)",'
    rf'"request_digest":"{_HEX32}","route":(?:null|\{{"instead_of":(null|{_INT[1:-1]}),"turn":(0|[1-9][0-9]{{0,2}})\}}),'
    r'"version":1\}'
)
_ANSWERED: Final = re.compile(
    rf'\{{"attempt":{_INT},"audited":{_BOOL},"block":{_INT},"kind":"answered","receipt":\{{"body":\{{'
    rf'"attempt":"{_HEX8}","block":{_INT},"completion_digest":"{_HEX32}","genesis":"{_HEX32}","issued_at":{_INT},'
    rf'"model":"{_TEXT}","model_digest":"{_HEX32}","netuid":(0|[1-9][0-9]{{0,3}}),"prover":"{_HOTKEY}",'
    rf'"request_digest":"{_HEX32}","salt":"{_HEX32}","spec_version":1,"verifier":"{_HOTKEY}"\}},'
    rf'"signature":"{_HEX64}"\}},"tokens":{_INT},"tokens_per_s":{_SPEED},"version":1\}}'
)


class LeanRoute(NamedTuple):
    """A :class:`targon.ledger.Route`, as far as the fold and the draws read it."""

    turn: int
    instead_of: int | None


class _AttemptFields(NamedTuple):
    block: int
    counted: bool
    dialect: str
    max_tokens: int
    model: str
    prover: Hotkey
    purpose: str
    request_digest: str
    route: LeanRoute | None


class LeanAttempt(_AttemptFields):
    """A :class:`targon.ledger.Attempt`."""

    __slots__ = ()
    kind: ClassVar[str] = "attempt"


class LeanBody(NamedTuple):
    """A receipt's body; its numbers as they are spelled."""

    attempt: str
    block: str
    completion_digest: str
    genesis: str
    issued_at: str
    model: str
    model_digest: str
    netuid: str
    prover: Hotkey
    request_digest: str
    salt: str
    verifier: Hotkey


class LeanReceipt(NamedTuple):
    """A receipt."""

    body: LeanBody
    signature: str


class _AnsweredFields(NamedTuple):
    attempt: int
    audited: bool
    block: int
    receipt: LeanReceipt
    tokens: int
    tokens_per_s: float | None


class LeanAnswered(_AnsweredFields):
    """A :class:`targon.ledger.Answered`."""

    __slots__ = ()
    kind: ClassVar[str] = "answered"


_LINE_START: Final = r'\{"event":'
_LINE_HASH: Final = r',"hash":"([0-9a-f]{64})'
_ATTEMPT_LINE: Final = re.compile(_LINE_START + _ATTEMPT.pattern + _LINE_HASH).match
_ANSWERED_LINE: Final = re.compile(
    # Hex is looked at by who takes it apart: that is faster.
    _LINE_START + _ANSWERED.pattern.replace("[0-9a-f]", '[^"]') + _LINE_HASH
).match

_HOT: Final = re.compile(
    rb'\{"attempt":[0-9]{1,16},"audited":(?:true|false),"block":[0-9]{1,16},"kind":"answered",'
    rb'|\{"block":[0-9]{1,16},"counted":(?:true|false),"dialect":"[^"\\]{1,32}","kind":"attempt",'
)
"""How the two begin, in canonical form. What else says so, within some field of its own, begins otherwise."""

_HEX_OF: Final = itemgetter(3, 5, 6, 9, 12, 13, 15)
"""Of the groups of an answer, those in hex."""
_HEX_BYTES: Final = 8 + 5 * 32 + 64

_tuple: Final = tuple.__new__
_TRUE: Final = "true"


def looks_hot(data: bytes, at: int = 0) -> bool:
    """Whether an event that starts there begins as one of a kind that is parsed here. It says nothing of whether it is
    one."""
    return _HOT.match(data, at) is not None


def parse(event: bytes) -> Event | LeanAttempt | LeanAnswered:
    """Parse an event from its canonical form; one that looks hot is held to it.

    Raises:
        UnknownEvent: as :func:`targon.ledger.parse_event`.
        MalformedMessage: if one that looks hot is not in canonical form.
    """
    try:
        text = event.decode("ascii")
    except UnicodeDecodeError:
        return _parse_at_length(event)
    if text.startswith('{"attempt":'):
        found = _ANSWERED.fullmatch(text)
        made = None if found is None else _answered(found.groups())
        return made if made is not None else _parse_at_length(event)
    found = _ATTEMPT.fullmatch(text)
    return _attempt(found.groups()) if found is not None else _parse_at_length(event)


def _parse_at_length(event: bytes) -> Event:
    made = parse_event(event)
    if looks_hot(event):  # the others are held to it by who hashes them
        check_canonical(event)
    return made


def attempt_line(text: str, at: int) -> tuple[LeanAttempt, int, Digest] | None:
    """The attempt that a log line beginning at a place tells of, where its hash ends, and the hash; None, if it is to
    be parsed at length."""
    found = _ATTEMPT_LINE(text, at)
    if found is None:
        return None
    groups = found.groups()
    return _attempt(groups), found.end(), Digest(groups[10])


def answered_line(text: str, at: int) -> tuple[LeanAnswered, int, Digest] | None:
    """As :func:`attempt_line`, of an answer."""
    found = _ANSWERED_LINE(text, at)
    if found is None:
        return None
    groups = found.groups()
    attempt, completion, genesis, model, request, salt, signature = _HEX_OF(groups)
    digits = attempt + completion + genesis + model + request + salt + signature
    try:
        if len(bytes.fromhex(digits)) != _HEX_BYTES or digits != digits.lower():  # a space is skipped
            return None
    except ValueError:
        return None
    made = _answered(groups)
    return None if made is None else (made, found.end(), Digest(groups[18]))


def _integer(spelled: str) -> int | float:
    """A number without a point: a float, where an integer would be beyond ±(2⁵³ − 1)."""
    return float(spelled) if len(spelled) > 16 or abs(int(spelled)) >= 1 << 53 else int(spelled)


def check_canonical(event: bytes) -> dict[str, Any]:
    """Check that everybody reads the same in an event: no key twice, no other spelling of a number. Returns it as JSON.

    Raises:
        MalformedMessage: if it is not in its canonical form.
    """
    for as_integer in (int, _integer):
        try:
            value = json.loads(event, parse_int=None if as_integer is int else as_integer)
            if isinstance(value, dict) and canonical_bytes(value) == event:
                return value
        except (ValueError, RecursionError, MalformedMessage):
            pass
    raise MalformedMessage("its event is no JSON object in canonical form (RFC 8785)")


def _attempt(groups: tuple[Any, ...]) -> LeanAttempt:
    block, counted, dialect, max_tokens, model, prover, purpose, digest, instead_of, turn = groups[:10]
    route = None
    if turn is not None:
        route = _tuple(LeanRoute, (int(turn), None if instead_of == "null" else int(instead_of)))
    return _tuple(
        LeanAttempt,
        (int(block), counted == _TRUE, dialect, int(max_tokens), model, prover, purpose, digest, route),
    )


def _answered(groups: tuple[Any, ...]) -> LeanAnswered | None:
    """The event; None where its speed is not spelled as its canonical form is."""
    spelled, speed = groups[17], None
    if spelled != "null":
        speed = float(spelled)
        if repr(speed) != (spelled if "." in spelled else spelled + ".0"):
            return None
    receipt = _tuple(LeanReceipt, (_tuple(LeanBody, groups[3:15]), groups[15]))
    return _tuple(
        LeanAnswered, (int(groups[0]), groups[1] == _TRUE, int(groups[2]), receipt, int(groups[16]), speed)
    )
