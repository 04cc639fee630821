"""What the log says, against what the chain holds: the anchored head, and the newest weights."""

from __future__ import annotations

from collections.abc import Mapping

from targon.audit.folding import Wanted
from targon.audit.report import Report
from targon.chain import Chain
from targon.protocol.primitives import Uid
from targon.protocol.schedule import interval_of


async def check_network(chain: Chain, report: Report) -> bool:
    """Whether the chain is the log's; a fault, if it isn't."""
    info = await chain.info()
    if (info.genesis, info.netuid) == (report.genesis, report.netuid):
        return True
    report.faults.add(
        "stranger",
        "chain",
        f"the log of subnet {report.netuid} of {(report.genesis or '')[:12]}…",
        f"subnet {info.netuid} of {info.genesis[:12]}…, the chain that was given",
    )
    return False


async def compare_with_chain(chain: Chain, report: Report, wanted: Wanted) -> None:
    """Compare the anchored head and the newest weights with what the log has.

    What the chain holds of a time after the audited part can't be compared; it is said.

    Raises:
        ChainError: if the chain can't be asked.
    """
    if report.verifier is None or not await check_network(chain, report):
        return
    await _anchor(chain, report, wanted)
    await _weights(chain, report, wanted)


async def _anchor(chain: Chain, report: Report, wanted: Wanted) -> None:
    """A head that was anchored in an interval which the log has, or before, is one of the log's."""
    assert report.verifier is not None
    anchor = await chain.anchor_of(report.verifier)
    if anchor is None:
        report.notes.append("the verifier has anchored no head on chain")
        return
    interval, newest = wanted.heads.get(anchor.digest), max(wanted.heads.values(), default=-1)
    if interval is not None:
        report.chain.append(f"the head anchored in block {anchor.block} is that of interval {interval}")
    elif interval_of(anchor.block, wanted.interval_blocks) <= newest:
        report.faults.add(
            "forked",
            "chain",
            f"no interval whose head is {anchor.digest[:12]}…",
            f"one: the verifier anchored it in block {anchor.block}, and the log goes on to interval {newest}",
        )
    else:
        report.notes.append(
            f"the newest head on chain is of block {anchor.block}; the audited part ends with interval {newest}: what "
            "came after it is not published yet, or left out"
        )


async def _weights(chain: Chain, report: Report, wanted: Wanted) -> None:
    """What a verifier sets follows from records that are released only afterwards: while it goes on, the chain is
    mostly one vector ahead."""
    assert report.verifier is not None
    me = (await chain.metagraph()).by_hotkey(report.verifier)
    if me is None:
        report.notes.append("the verifier holds no UID any more: its weights can't be compared")
        return
    standing = await chain.weights_of(me.uid)
    if wanted.weights_block is None:
        report.notes.append("the log has set no weights yet")
    elif standing == report.weights:
        report.chain.append(f"the chain holds the weights that the log set in block {wanted.weights_block}")
    elif me.last_update is not None and me.last_update > wanted.weights_block:
        report.notes.append(
            f"the chain's weights are of block {me.last_update}, newer than the last of the audited part, of block "
            f"{wanted.weights_block}: they can be compared once their records are released"
        )
    else:
        uid = _first_difference(standing, report.weights)
        report.faults.add(
            "chain",
            "weights",
            f"{standing.get(uid, 0)} for UID {uid} on chain",
            f"{report.weights.get(uid, 0)}, as the log set them in block {wanted.weights_block}",
        )


def _first_difference(one: Mapping[Uid, int], other: Mapping[Uid, int]) -> Uid:
    return next(uid for uid in sorted({*one, *other}) if one.get(uid) != other.get(uid))
