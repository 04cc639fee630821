"""docs/verifier-axon.md and docs/wire.md say what a verifier's axon does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from targon.chain.announcing import REANNOUNCE_BLOCKS
from targon.chain.followed import MAX_AGE_S, METAGRAPH_BLOCKS
from targon.protocol.records import GENESIS_HASH, LogLine, record_hash
from targon.transport.released import MAX_PAGE_RECORDS, PAGE_BYTES
from targon.verifier import AxonSettings
from targon.verifier.metrics import STALLED_BLOCKS, UNWRITTEN_S
from targon.verifier.service import MAX_READERS, PIECE_TIMEOUT_S

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "verifier-axon.md").read_text("utf-8")
WIRE = " ".join((DOCS / "wire.md").read_text("utf-8").split())


def test_the_documented_bounds_are_those_of_the_code() -> None:
    settings, page = AxonSettings(), " ".join(PAGE.split())
    hotkey, address = settings.limits.per_hotkey, settings.limits.per_address
    for phrase in (
        f"at most {MAX_PAGE_RECORDS:,} records, and ends with the record that takes it to {PAGE_BYTES >> 20} MiB",
        f"At most {MAX_READERS} pieces are sent at once",
        f"has not taken within {PIECE_TIMEOUT_S:g} s is cut off",
        f"port {settings.port} unless told otherwise",
        f"a hotkey {hotkey.per_second:g} requests a second ({hotkey.burst}), {hotkey.concurrent} running",
        f"an address {address.per_second:g} a second ({address.burst}), {address.concurrent} running",
        f"{settings.limits.max_concurrent} running in all",
    ):
        assert phrase in WIRE
    for phrase in (
        f"`--axon.port` ({settings.port} by default)",
        f"at most once in {REANNOUNCE_BLOCKS} blocks",
        f"let in within {METAGRAPH_BLOCKS} blocks",
        f"no step has closed for {STALLED_BLOCKS} blocks",
        f"has taken nothing for {UNWRITTEN_S:g} s",
        f"no new block for {MAX_AGE_S / 60:g} minutes",
    ):
        assert phrase in page


@pytest.mark.parametrize("changed", [None, b'"number":1', b'"seq":2'])
def test_the_documented_check_takes_a_log_that_is_right_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bytes | None
) -> None:
    lines, prev = b"", GENESIS_HASH
    for seq in range(4):
        event = b'{"number":%d,"reason":"},\\"hash\\":\\"x"}' % seq
        line = LogLine(seq, prev, record_hash(seq, prev, event), event)
        lines, prev = lines + line.to_bytes() + b"\n", line.hash
    if changed is not None:
        lines = lines.replace(changed, changed[:-1] + b"9")
    (tmp_path / "released.jsonl").write_bytes(lines)
    monkeypatch.chdir(tmp_path)
    code = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "hashlib" in block)
    program = compile(code, "docs/verifier-axon.md", "exec")
    if changed is None:
        exec(program, {})
    else:
        with pytest.raises(AssertionError, match=r"record \d"):
            exec(program, {})
