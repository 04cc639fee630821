"""What an oracle reveals of a period when it is over, held to what it committed to beforehand.

Lines of JSON, as ``GET /v1/reveals/N`` gives them: ``{"number", "commitment", "secret"}``, then ``{"source", "text"}``
for each leaf in order. Whoever gives them is not trusted: every line and file has a bound, every wait a deadline.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import aiohttp
import anyio

from targon.audit.errors import Unreadable
from targon.audit.faults import Faults
from targon.audit.fetching import LEFT_FREE_BYTES, is_url
from targon.audit.hashing import opened
from targon.audit.oracles import OracleReport, SeenCommitment, committed_in
from targon.protocol.disclosures import OracleStatus
from targon.protocol.errors import MalformedMessage
from targon.protocol.primitives import Hotkey
from targon.protocol.private_inputs import (
    MAX_SOURCE_CHARS,
    MAX_TEXT_CHARS,
    CommitmentBody,
    Tree,
    leaf_hash,
    salt_of,
    secret_digest,
)

REVEALS: Final = "/v1/reveals"
STATUS: Final = "/v1/status"
MAX_LINE_BYTES: Final = 12 * (MAX_TEXT_CHARS + MAX_SOURCE_CHARS) + 1_024
"""Every character escaped, in pairs, and the rest of the line."""
MAX_REVEAL_BYTES: Final = 8 << 30
MAX_STATUS_BYTES: Final = 1 << 20
LOOK_BYTES: Final = 16 << 20
"""Between two looks at the room on the disk."""
CONNECT_S: Final = 10.0
READ_S: Final = 30.0
FILE_S: Final = 600.0


class WrongReveal(Exception):
    """A reveal that isn't what was committed to. It carries what was got and expected."""

    def __init__(self, got: str, expected: str) -> None:
        self.got = got
        self.expected = expected
        super().__init__(f"got {got}, expected {expected}")


def check_reveal(file: IO[bytes], body: CommitmentBody, before: set[bytes]) -> None:
    """Compute a period's root again.

    Args:
        before: digests of texts that were revealed for earlier periods; this one's are added.

    Raises:
        WrongReveal: at the first thing that isn't as it was committed to.
    """
    head = _line(file, "the period's secret")
    if (head.get("number"), head.get("commitment")) != (body.number, body.digest()):
        raise WrongReveal(
            f"a reveal of commitment {head.get('number')}", f"one of {body.number}, {body.digest()[:12]}…"
        )
    try:
        secret = bytes.fromhex(head.get("secret"))  # type: ignore[arg-type]  # it may be anything
    except (TypeError, ValueError):
        raise WrongReveal("no secret", "hex digits") from None
    if secret_digest(secret) != body.secret:
        raise WrongReveal(
            f"a secret of digest {secret_digest(secret)[:12]}…", f"{body.secret[:12]}…, as committed to"
        )
    leaves = bytearray()
    for leaf in range(body.leaves):
        said = _line(file, f"leaf {leaf} of {body.leaves}")
        text, source = said.get("text"), said.get("source")
        if not isinstance(text, str) or not isinstance(source, str) or len(said) != 2:
            raise WrongReveal(f"at leaf {leaf} no text and source", "both, and nothing else")
        try:
            leaves += leaf_hash(salt_of(secret, leaf), text, source)
        except MalformedMessage as error:
            raise WrongReveal(f"at leaf {leaf} {error}", "a text that has a canonical form") from error
        digest = hashlib.sha256(text.encode()).digest()[:16]
        if digest in before:
            raise WrongReveal(
                f"at leaf {leaf} a text from {source[:80]!r} that was given before", "one that nobody saw"
            )
        before.add(digest)
    if file.readline(1):
        raise WrongReveal(f"more than {body.leaves} leaves", "as many as were committed to")
    root = Tree(bytes(leaves)).root
    if root != body.root:
        raise WrongReveal(f"texts of root {root[:12]}…", f"{body.root[:12]}…, as committed to")


def _line(file: IO[bytes], what: str) -> dict[str, Any]:
    line = file.readline(MAX_LINE_BYTES)
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise WrongReveal(
            f"no line of JSON for {what}" if line else f"its end before {what}", "a JSON object a line"
        )
    return said


async def check_reveals(
    place: str, report: OracleReport, faults: Faults, notes: list[str], *, count: int, scratch: Path
) -> None:
    """Check what an oracle reveals of some periods of a log, drawn at random.

    Args:
        place: an oracle's address, or a folder of reveals, ``N.jsonl`` each.
        count: how many periods to check at most.
    """
    whose = await _whose(place.rstrip("/")) if is_url(place) else None
    oracles = {seen.oracle for seen in report.commitments}
    periods = [
        seen
        for seen in {seen.digest: seen for seen in report.commitments}.values()
        if whose not in oracles or seen.oracle == whose
    ]
    drawn = sorted(
        secrets.SystemRandom().sample(periods, min(count, len(periods))), key=lambda one: one.number
    )
    if not drawn:
        notes.append("the log tells of no commitment: nothing of an oracle's reveals could be checked")
    before: set[bytes] = set()
    folder = scratch if is_url(place) else Path(await anyio.Path(place).expanduser())
    for seen in drawn:
        path = folder / f"{seen.number}.jsonl"
        if is_url(place):
            committed = await anyio.to_thread.run_sync(committed_in, seen)
            leaves = 0 if committed is None else CommitmentBody.from_json(committed["body"]).leaves
            most = min(MAX_REVEAL_BYTES, (leaves + 1) * MAX_LINE_BYTES)
            problem = await _fetch(f"{place.rstrip('/')}{REVEALS}/{seen.number}", path, most)
            if problem is not None:
                notes.append(f"period {seen.number} of {seen.oracle} could not be checked: {problem}")
                continue
        await anyio.to_thread.run_sync(_check, place, path, seen, report, faults, notes, before)
        if is_url(place):
            await anyio.Path(path).unlink(missing_ok=True)


async def _whose(place: str) -> Hotkey | None:
    """Whose reveals an address has, by its own word, which only chooses what is asked for; None: it doesn't say."""
    body = await read_small(place + STATUS)
    try:
        return None if body is None else OracleStatus.from_bytes(body).hotkey
    except MalformedMessage:
        return None


async def read_small(url: str, most: int = MAX_STATUS_BYTES) -> bytes | None:
    """What an oracle's address gives, so many bytes of it at most; None: nothing."""
    waits = aiohttp.ClientTimeout(total=READ_S, connect=CONNECT_S)
    body = b""
    try:
        async with (
            aiohttp.ClientSession(timeout=waits, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, ssl=False) as answer,
        ):
            async for piece in answer.content.iter_chunked(1 << 16):
                body += piece
                if len(body) >= most:
                    break
            return body[:most] if answer.status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


def _of_another(path: Path, seen: SeenCommitment, known: Sequence[SeenCommitment]) -> SeenCommitment | None:
    """The other commitment in the log, of the same number, that a reveal names; None: it names none."""
    with opened(path, MAX_REVEAL_BYTES) as file:
        try:
            named = _line(file, "the period's secret").get("commitment")
        except WrongReveal:
            return None
    same = (each for each in known if each.number == seen.number and each.digest != seen.digest)
    return next((each for each in same if each.digest == named), None)


def _check(
    place: str,
    path: Path,
    seen: SeenCommitment,
    report: OracleReport,
    faults: Faults,
    notes: list[str],
    before: set[bytes],
) -> None:
    committed = committed_in(seen)
    if committed is None:
        return
    body = CommitmentBody.from_json(committed["body"])
    where = f"period {seen.number} of oracle {seen.oracle}"
    if len({each.oracle for each in report.commitments}) > 1:
        where = (
            f"{where}, as revealed at {place}"  # which may be another's: nobody is to be accused of its words
        )
    try:
        other = _of_another(path, seen, report.commitments)
        if other is not None:
            notes.append(
                f"{where} could not be checked: what is revealed is of another commitment of {other.oracle}"
            )
            return
        with opened(path, MAX_REVEAL_BYTES) as file:
            check_reveal(file, body, before)
    except FileNotFoundError:
        notes.append(
            f"period {seen.number} of {seen.oracle} could not be checked: there is no {path}; it wasn't over, or "
            "nobody kept it"
        )
        return
    except (OSError, Unreadable) as error:
        notes.append(f"period {seen.number} of {seen.oracle} could not be checked: {error}")
        return
    except WrongReveal as error:
        faults.add("oracle_reveal", where, error.got, error.expected)
    report.reveals += 1


async def _fetch(url: str, path: Path, most: int) -> str | None:
    """Fetch a reveal of so many bytes at most into a file; why it could not be, if it couldn't."""
    waits = aiohttp.ClientTimeout(total=FILE_S, connect=CONNECT_S, sock_read=READ_S)
    try:
        async with (
            # an oracle's certificate is its hotkey's; what it reveals is held to what it signed
            aiohttp.ClientSession(timeout=waits, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, ssl=False) as answer,
        ):
            if answer.status != 200:
                return f"HTTP {answer.status} from {url}"
            size = looked = 0
            with path.open("wb") as file:
                async for piece in answer.content.iter_chunked(1 << 16):
                    size += len(piece)
                    if size > most:
                        return f"over {most} bytes from {url}, more than its texts can have"
                    if size >= looked:
                        looked = size + LOOK_BYTES
                        if shutil.disk_usage(path.parent).free < LEFT_FREE_BYTES:
                            return f"there is no room for it: fewer than {LEFT_FREE_BYTES} bytes would be left free"
                    file.write(piece)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return None
