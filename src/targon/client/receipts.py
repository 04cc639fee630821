"""Receipts as a caller sees them, and what a caller may expect of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from targon.client.errors import NotVerified, Words
from targon.protocol import (
    Block,
    Digest,
    GenerateRequest,
    GenerateResponse,
    Hotkey,
    ProtocolError,
    Receipt,
    ReceiptBody,
)

_NO_RECEIPT = (
    "look whether base_url is that of a TARGON gateway, and whether anything on the way takes fields away"
)


@dataclass(frozen=True, slots=True)
class Expected:
    """Who must have answered. What is None may be anything.

    Without any of these, ``verify()`` shows that *some* prover signed this answer to this question for *some* verifier:
    pin the verifier at least, and the model's digest, once you know them.
    """

    verifier: str | None = None
    """The verifier's hotkey, an ss58 address."""
    prover: str | None = None
    """The prover's hotkey, an ss58 address."""
    model_digest: str | None = None
    """Of weights, tokenizer, chat template and sampling defaults, 64 hex digits."""
    netuid: int | None = None
    """The subnet."""
    genesis: str | None = None
    """Hash of the chain's first block, 64 hex digits."""

    def over(self, base: Self) -> Self:
        """These, and what the base says where these say nothing."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(
            **{name: getattr(base, name) if value is None else value for name, value in mine.items()}
        )

    def check(self, body: ReceiptBody, choice: int | None = None) -> None:
        """Check that a receipt names whom we expect.

        Raises:
            NotVerified: naming the first field that differs.
        """
        for field in fields(self):
            expected, got = getattr(self, field.name), getattr(body, field.name)
            if expected is not None and got != expected:
                advice = (
                    f"if {got!r} is whom you mean, expect that; otherwise don't use the answer, and look whose "
                    "gateway base_url names"
                )
                raise NotVerified(f"receipt's {field.name}", got, expected, advice=advice, choice=choice)


@dataclass(frozen=True, slots=True)
class AnswerReceipt:
    """What came with one answer: the prover's request, its whole answer, and the receipt that binds the two.

    Nothing of it is checked before ``verify()``.
    """

    id: Digest
    """The digest of the request, by which the verifier has the receipt on file."""
    request: GenerateRequest
    response: GenerateResponse

    @classmethod
    def of(cls, note: Any, choice: int) -> Self:  # noqa: ANN401 - whatever the gateway sent
        """Parse what a gateway adds to an answer.

        Raises:
            NotVerified: if it is no receipt with its request and answer.
        """
        if not isinstance(note, dict) or not note.get("request") or not note.get("response"):
            got = (
                "none" if not note else "a receipt's id alone" if isinstance(note, dict) else "something else"
            )
            expected = Words("a receipt with its request and answer")
            raise NotVerified("receipt", Words(got), expected, advice=_NO_RECEIPT, choice=choice)
        try:
            request = GenerateRequest.from_json(note["request"])
            response = GenerateResponse.from_json(note["response"])
        except (ProtocolError, TypeError, ValueError) as error:
            raise NotVerified(
                "receipt", Words(str(error)), Words("a request and its answer"), choice=choice
            ) from error
        digest = request.digest()
        if note.get("receipt_id") != digest:
            raise NotVerified("receipt's id", note.get("receipt_id"), digest, choice=choice)
        return cls(digest, request, response)

    @property
    def signed(self) -> Receipt:
        """What the prover signed."""
        return self.response.receipt

    @property
    def prover(self) -> Hotkey:
        """Who answered."""
        return self.signed.body.prover

    @property
    def verifier(self) -> Hotkey:
        """Who asked, in whose log the answer stands."""
        return self.signed.body.verifier

    @property
    def model(self) -> str:
        return self.signed.body.model

    @property
    def model_digest(self) -> Digest:
        """Of weights, tokenizer, chat template and sampling defaults, as the prover claims to run them."""
        return Digest(self.signed.body.model_digest)

    @property
    def block(self) -> Block:
        """In which the prover was asked."""
        return self.signed.body.block

    @property
    def attempt(self) -> int:
        """Its number in the verifier's log."""
        return int(self.signed.body.attempt, 16)

    @property
    def issued_at(self) -> int:
        """Seconds since 1970-01-01 UTC, by the prover's clock."""
        return self.signed.body.issued_at

    @property
    def replayable(self) -> bool:
        """Whether anyone with the model can replay the sampler over the tokens (``targon verify``)."""
        return self.request.sampling.dialect in ("targon/1", "greedy")
