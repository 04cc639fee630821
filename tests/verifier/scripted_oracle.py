"""An oracle that tells the truth, or whatever a test has it tell, over real HTTP; and a chain that tests turn."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import anyio
from anyio.abc import TaskStatus
from bittensor.keyfiles import Keypair
from prometheus_client import CollectorRegistry

from targon.chain import ChainUnavailable, Metagraph, Neuron
from targon.protocol import private_inputs
from targon.protocol.disclosures import CommittedPeriod, OracleStatus
from targon.protocol.primitives import Block, Digest, Hotkey, Uid
from targon.protocol.private_inputs import (
    NO_COMMITMENT,
    Commitment,
    CommitmentBody,
    PrivateInput,
    PrivateInputBody,
    Tree,
    deal,
    leaf_hash,
    rank_of,
    salt_of,
    secret_digest,
)
from targon.transport import (
    Code,
    Gate,
    Limits,
    Refusal,
    Route,
    SignedRequest,
    bind,
    bound_port,
    send_json,
    serve,
)

ORACLE = Keypair.create_from_uri("//Oracle")
STRANGER = Keypair.create_from_uri("//Stranger")
GENESIS = Digest("ab" * 32)
NETUID = 4
PERIOD = 4
FIRST = 2
"""First block of period 0."""


def hash_of(block: Block, salt: bytes = b"") -> Digest:
    """A block's hash."""
    return Digest(hashlib.sha256(b"block %d" % block + salt).hexdigest())


class TurnedChain:
    """A chain whose block is what a test says."""

    def __init__(self, block: int = 0) -> None:
        self.now = block
        self.silent = False
        self.salt = b""
        """Other block hashes, with another salt."""
        self.permits: set[Hotkey] = set()

    async def block(self) -> Block:
        if self.silent:
            raise ChainUnavailable("the chain gave no answer")
        return Block(self.now)

    async def block_hash(self, block: Block) -> Digest:
        return hash_of(block, self.salt)

    async def metagraph(self) -> Metagraph:
        if self.silent:
            raise ChainUnavailable("the chain gave no answer")
        neurons = (
            Neuron(Uid(uid), hotkey, 1.0, True, None, Block(1), None, 0.0, 0.0)
            for uid, hotkey in enumerate(sorted(self.permits))
        )
        return Metagraph(NETUID, Block(self.now), tuple(neurons))

    async def blocks(self) -> AsyncGenerator[Block, None]:
        last = -1
        while True:
            if self.now > last:
                last = self.now
                yield Block(last)
            await anyio.sleep(0.005)


class Period:
    """One period of an oracle's, with all that it reveals afterwards."""

    def __init__(
        self,
        number: int,
        verifiers: tuple[Hotkey, ...],
        *,
        previous: str = NO_COMMITMENT,
        taste: str = "",
        signer: Keypair = ORACLE,
        places: int = 3,
        first: int | None = None,
        genesis: str = GENESIS,
    ) -> None:
        self.secret = hashlib.sha256(b"secret %d" % number + taste.encode()).digest()
        first = FIRST + number * PERIOD if first is None else first
        count = PERIOD * len(verifiers) * places
        self.texts = [
            (f"{taste}Passage {leaf} of period {number}.", f"book:{number}:{leaf}") for leaf in range(count)
        ]
        self.leaves = [leaf_hash(salt_of(self.secret, leaf), *self.texts[leaf]) for leaf in range(count)]
        self.tree = Tree(b"".join(self.leaves))
        self.body = CommitmentBody(
            genesis=genesis,
            netuid=NETUID,
            oracle=Hotkey(ORACLE.ss58_address),
            number=number,
            first=Block(first),
            last=Block(first + PERIOD - 1),
            verifiers=tuple(sorted(verifiers)),
            places=places,
            root=self.tree.root,
            secret=secret_digest(self.secret),
            source="03" * 32,
            previous=previous,
        )
        self.commitment: Commitment = private_inputs.commit(self.body, signer)

    def give(self, first_hash: str, verifier: Hotkey, block: Block, place: int) -> PrivateInput:
        leaf = int(deal(self.body, first_hash)[rank_of(self.body, verifier, block, place)])
        return self.give_leaf(leaf, verifier, block, place)

    def give_leaf(
        self, leaf: int, verifier: Hotkey, block: Block, place: int, signer: Keypair = ORACLE
    ) -> PrivateInput:
        text, source = self.texts[leaf]
        body = PrivateInputBody(
            genesis=self.body.genesis,
            netuid=NETUID,
            oracle=Hotkey(ORACLE.ss58_address),
            verifier=verifier,
            block=block,
            place=place,
            commitment=self.body.digest(),
            leaf=leaf,
            salt=salt_of(self.secret, leaf).hex(),
            text=text,
            source=source,
        )
        return private_inputs.give(body, self.tree.proof(leaf), signer)

    def reveal(self) -> list[dict[str, Any]]:
        """The lines of ``GET /v1/reveals/N``."""
        head = {"number": self.body.number, "commitment": self.body.digest(), "secret": self.secret.hex()}
        return [head, *({"source": source, "text": text} for text, source in self.texts)]


def periods(
    count: int, *verifiers: Hotkey, taste: str = "", places: int = 3, genesis: str = GENESIS
) -> list[Period]:
    """The first periods of an oracle, chained."""
    made: list[Period] = []
    for number in range(count):
        previous = made[-1].body.digest() if made else NO_COMMITMENT
        made.append(Period(number, verifiers, previous=previous, taste=taste, places=places, genesis=genesis))
    return made


async def _serve(gate: Gate, sock: socket.socket, *, task_status: TaskStatus[None]) -> None:
    await serve(gate, sock, limits=Limits(), task_status=task_status)


Twist = Callable[[PrivateInput, Period, Hotkey, Block, int], PrivateInput]


@dataclass
class ScriptedOracle:
    """What it answers. A commitment is shown from ``ahead`` blocks before its first block on."""

    chain: TurnedChain
    periods: list[Period]
    ahead: int = 2
    told: Callable[[Hotkey], list[Period]] | None = None
    """Another story for some."""
    twist: Twist | None = None
    raw: bytes | None = None
    """Answered to whoever asks for a private input, as it stands."""
    raw_commitments: bytes | None = None
    raw_status: bytes | None = None
    slow_s: float = 0.0
    refusal: Refusal | None = None
    asked: list[tuple[Hotkey, int, int]] = field(default_factory=list)
    """Verifier, block and place of each request."""
    read: list[int] = field(default_factory=list)
    """From which number on commitments were asked for."""

    def of(self, verifier: Hotkey) -> list[Period]:
        return self.periods if self.told is None else self.told(verifier)

    async def private_input(self, request: SignedRequest, _: Any, send: Any) -> None:
        asked = parse_qs(request.query)
        block, place = Block(int(asked["block"][0])), int(asked["place"][0])
        self.asked.append((request.caller, block, place))
        await anyio.sleep(self.slow_s)
        if self.refusal is not None:
            raise self.refusal
        if self.raw is not None:
            await send_json(send, 200, self.raw)
            return
        if block < self.chain.now:
            raise Refusal(Code.BLOCK_GONE, "it has passed", got=block, expected=self.chain.now)
        if block > self.chain.now:
            raise Refusal(Code.BLOCK_NOT_YET, "it is to come", got=block, retry_after_s=0.05)
        period = next(each for each in self.of(request.caller) if each.body.first <= block <= each.body.last)
        given = period.give(await self.chain.block_hash(period.body.first), request.caller, block, place)
        if self.twist is not None:
            given = self.twist(given, period, request.caller, block, place)
        await send_json(send, 200, given.to_bytes())

    async def commitments(self, request: SignedRequest, _: Any, send: Any) -> None:
        asked = parse_qs(request.query)
        start = int(asked["from"][0])
        self.read.append(start)
        if self.raw_commitments is not None:
            await send_json(send, 200, self.raw_commitments)
            return
        shown = [each for each in self._shown(request.caller) if each.body.number >= start]
        await send_json(send, 200, b"[" + b",".join(each.commitment.to_bytes() for each in shown) + b"]")

    def _shown(self, verifier: Hotkey) -> list[Period]:
        return [each for each in self.of(verifier) if each.body.first - self.ahead <= self.chain.now]

    async def status(self, request: SignedRequest, _: Any, send: Any) -> None:
        status = OracleStatus(
            software="scripted",
            hotkey=Hotkey(ORACLE.ss58_address),
            netuid=NETUID,
            genesis=GENESIS,
            block=Block(self.chain.now),
            periods=tuple(
                CommittedPeriod(
                    number=each.body.number,
                    first=each.body.first,
                    last=each.body.last,
                    places=each.body.places,
                )
                for each in self._shown(request.caller)
                if each.body.last >= self.chain.now
            ),
            source="a script",
        )
        await send_json(send, 200, self.raw_status or status.to_bytes())

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncGenerator[int]:
        """Serve while the block lasts; yields the port."""
        gate = Gate(
            receiver=Hotkey(ORACLE.ss58_address),
            routes={
                "/v1/status": Route("GET", self.status, takes_body=False),
                "/v1/private-input": Route("GET", self.private_input, takes_body=False, takes_query=True),
                "/v1/commitments": Route("GET", self.commitments, takes_body=False, takes_query=True),
            },
            policy=lambda _: None,
            limits=Limits(),
            registry=CollectorRegistry(),
        )
        with bind("127.0.0.1", port) as sock:
            async with anyio.create_task_group() as group:
                await group.start(_serve, gate, sock)
                yield bound_port(sock)
                group.cancel_scope.cancel()
