"""Signed answers, true and forged: what structure is there to catch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from bittensor.keyfiles import Keypair

from targon.engines import Engine
from targon.protocol import receipts
from targon.protocol.keys import Signer
from targon.protocol.messages import Completion, GenerateRequest, GenerateResponse
from targon.protocol.primitives import Block, Digest, Hotkey, TokenId, u64_hex
from targon.verification.transcripts import Transcript

GENESIS: Final = "11" * 32
_SALT = b"\x22" * 32


@dataclass(frozen=True, slots=True)
class Keys:
    """The signers that take part."""

    prover: Signer
    verifier: Signer
    stranger: Signer


def make_keys() -> Keys:
    """The same keys every time: they guard nothing."""
    return Keys(
        *(Keypair.create_from_uri(f"//redteam/{name}") for name in ("prover", "verifier", "stranger"))
    )


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and what came back."""

    request: GenerateRequest
    response: GenerateResponse


async def exchange(transcript: Transcript, engine: Engine, keys: Keys) -> Exchange:
    """A transcript as it would have gone over the wire, honestly signed.

    Args:
        engine: for its model's name and tokenizer; the model isn't run.

    Raises:
        EngineUnavailable: if the tokenizer couldn't be asked.
    """
    identity = engine.identity
    request = GenerateRequest(
        salt=hashlib.sha256(b"%d" % transcript.number).hexdigest(),
        genesis=GENESIS,
        netuid=4,
        verifier=Hotkey(keys.verifier.ss58_address),
        prover=Hotkey(keys.prover.ss58_address),
        attempt=u64_hex(transcript.number),
        block=Block(1),
        block_hash="33" * 32,
        log_head="44" * 32,
        model=identity.name,
        messages=transcript.messages,
        sampling=transcript.sampling,
    )
    completion = Completion(
        salt=_SALT.hex(),
        request_digest=request.digest(),
        token_ids=transcript.token_ids,
        finish_reason=transcript.finish_reason,
        text=await engine.text(transcript.token_ids, transcript.sampling.stop),
    )
    return Exchange(request, _signed(request, completion, identity.model_digest, keys.prover))


def _signed(
    request: GenerateRequest, completion: Completion, model_digest: Digest, signer: Signer
) -> GenerateResponse:
    receipt = receipts.issue(
        request, completion, model_digest=model_digest, issued_at=0, salt=_SALT, signer=signer
    )
    return GenerateResponse(completion=completion, receipt=receipt)


Forge: TypeAlias = Callable[[Exchange, Keys], GenerateResponse]
"""Makes a forged answer of an honest one."""


def wrong_key(honest: Exchange, keys: Keys) -> GenerateResponse:
    """Signed by somebody else."""
    digest = Digest(honest.response.receipt.body.model_digest)
    return _signed(honest.request, honest.response.completion, digest, keys.stranger)


def other_request(honest: Exchange, keys: Keys) -> GenerateResponse:
    """A receipt that the prover did sign, but for another request."""
    other = honest.request.model_copy(update={"salt": "55" * 32})
    completion = honest.response.completion
    digest = Digest(honest.response.receipt.body.model_digest)
    receipt = _signed(other, completion, digest, keys.prover).receipt
    return GenerateResponse(completion=completion, receipt=receipt)


def altered_token(honest: Exchange, keys: Keys) -> GenerateResponse:  # noqa: ARG001 - all forgeries alike
    """The last token but one (or the only one) is another than was signed."""
    ids = list(honest.response.completion.token_ids)
    place = max(0, len(ids) - 2)
    ids[place] = TokenId(ids[place] ^ 1)
    completion = honest.response.completion.model_copy(update={"token_ids": tuple(ids)})
    return GenerateResponse(completion=completion, receipt=honest.response.receipt)


FORGERIES: Final[Mapping[str, Forge]] = {
    "wrong-key": wrong_key,
    "other-request": other_request,
    "altered-token": altered_token,
}
