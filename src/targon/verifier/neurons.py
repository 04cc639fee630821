"""Who is a prover, who came and went, and who is drawn. Pure functions of a metagraph and the standings."""

from __future__ import annotations

from collections.abc import Iterable

from targon.chain import Axon, Neuron
from targon.ledger import Event, ProverJoined, ProverLeft, Standings
from targon.protocol import draws
from targon.protocol.keys import public_key
from targon.protocol.primitives import Block, Hotkey


def provers_among(neurons: Iterable[Neuron], *, me: Hotkey, vpermit_tao_limit: float) -> list[Neuron]:
    """Every neuron but ourselves and those with a validator permit and more stake than the limit (TAO)."""
    return [
        neuron
        for neuron in neurons
        if neuron.hotkey != me and not (neuron.validator_permit and neuron.stake > vpermit_tao_limit)
    ]


def comings_and_goings(standings: Standings, provers: Iterable[Neuron], block: Block) -> list[Event]:
    """The events that bring the standings up to what the chain says, departures first."""
    known = {prover.hotkey: prover.uid for prover in standings.provers() if prover.uid is not None}
    here = {neuron.hotkey: neuron.uid for neuron in provers}
    left: list[Event] = [
        ProverLeft(block=block, uid=uid, hotkey=hotkey)
        for hotkey, uid in known.items()
        if here.get(hotkey) != uid
    ]
    joined = [
        ProverJoined(block=block, uid=uid, hotkey=hotkey)
        for hotkey, uid in here.items()
        if known.get(hotkey) != uid
    ]
    return left + joined


def draw_provers(
    provers: Iterable[Neuron], standings: Standings, secret: bytes, block: Block, sample_size: int
) -> list[tuple[Hotkey, Axon]]:
    """The ``sample_size`` lowest ranks of a block's draw, among provers that serve and are under their
    tier's request limit."""
    eligible = []
    for neuron in provers:
        if neuron.axon is None:
            continue
        standing = standings.prover(neuron.hotkey)
        if standing is not None and standing.requests_left > 0:
            eligible.append((neuron.hotkey, neuron.axon))
    eligible.sort(key=lambda pair: draws.selection_rank(secret, block, public_key(pair[0])))
    return eligible[:sample_size]
