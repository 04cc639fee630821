"""One question and what came of it, and whether the one is the answer to the other.

What ``verify`` checks, in this order, with nothing but what is at hand:

1. Every answer that was asked for came whole, and with a receipt; there are no others.
2. The prover was asked exactly what the caller sent (:mod:`targon.client.asked`).
3. The prover signed the receipt, for exactly this request and this completion.
4. The text, the reason why it ended, the log-probabilities and the count of tokens that the caller was given are the
   completion's.
5. The receipt is of now, and no other answer of this client had it: no old answer is served again.
6. All answers to one question are of one verifier, on one network; and whoever the caller expects is who answered.

That the tokens are what the model draws takes the model: ``save`` the answer, and ``targon verify`` replays it.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from targon.client.asked import Body, Form, Wanted, wanted
from targon.client.errors import NotVerified, Words
from targon.client.receipts import AnswerReceipt, Expected
from targon.protocol import (
    Completion,
    InvalidSignature,
    MalformedMessage,
    ReceiptMismatch,
    ReceiptStatement,
    receipts,
)
from targon.protocol.tls import ALLOWED_SKEW_S

_FINISH: Final = {"stop": "stop", "stop_string": "stop", "length": "length"}
_REMEMBERED: Final = 65_536
"""Receipts of earlier answers, by their ids: about 10 MB."""

_READ_ON: Final = "read the stream to its end first; if it broke off, ask again"


class Ledger:
    """Which exchange of a client had which receipt first."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._numbers = itertools.count()

    def next(self) -> int:
        """A number for a new exchange."""
        return next(self._numbers)

    def enter(self, receipt_id: str, number: int) -> None:
        """Remember a receipt, unless an earlier exchange had it."""
        if self._first.setdefault(receipt_id, number) == number and len(self._first) > _REMEMBERED:
            del self._first[next(iter(self._first))]

    def first(self, receipt_id: str, number: int) -> bool:
        """Whether no earlier exchange had it."""
        return self._first.get(receipt_id, number) == number


@dataclass(slots=True)
class Told:
    """One answer as the caller was given it."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[tuple[int | None, float]] = field(default_factory=list)
    """Of each token that was named: its id, where that was said, and its log-probability."""
    finish_reason: str | None = None
    note: Any = None


class Exchange:
    """What was asked, and what was told."""

    def __init__(self, form: Form, body: Body, expect: Expected, ledger: Ledger) -> None:
        self._form = form
        self._body = copy.deepcopy(body)  # callers append to their lists of messages
        self._expect = expect
        self._ledger = ledger
        self._number = ledger.next()
        self._began = time.time()
        self._heard = self._began
        self._told: dict[int, Told] = {}
        self._tokens: int | None = None

    def take(self, piece: Any) -> None:  # noqa: ANN401 - an answer or a chunk, of either form
        """Note what an answer or a chunk of one says."""
        self._heard = time.time()
        usage = getattr(piece, "usage", None)
        if usage is not None:
            self._tokens = usage.completion_tokens
        for choice in piece.choices or ():
            told = self._told.setdefault(choice.index, Told())
            said = getattr(choice, "message", None) or getattr(choice, "delta", None)
            text = choice.text if self._form == "text" else said.content if said is not None else None
            if text:
                told.texts.append(text)
            told.logprobs += _named(choice.logprobs)
            told.finish_reason = choice.finish_reason or told.finish_reason
            note = (choice.model_extra or {}).get("targon")
            if note is not None:
                told.note = note
                if isinstance(note, dict):
                    self._ledger.enter(str(note.get("receipt_id")), self._number)

    @property
    def receipts(self) -> tuple[AnswerReceipt, ...]:
        """One for each answer, in the order of the choices; not checked.

        Raises:
            NotVerified: if there is none, or the stream isn't at its end.
        """
        return tuple(self._receipt(choice) for choice in range(max(1, len(self._told))))

    def _receipt(self, choice: int) -> AnswerReceipt:
        told = self._told.get(choice)
        if told is None or told.finish_reason is None:
            raise NotVerified(
                "answer", Words("one that has no end"), Words("a whole one"), advice=_READ_ON, choice=choice
            )
        return AnswerReceipt.of(told.note, choice)

    def verify(self, expected: Expected) -> None:
        """Check all that is in this module's list.

        Raises:
            NotVerified: naming the first thing that is wrong.
        """
        expect = expected.over(self._expect)
        asked = wanted(self._form, self._body)
        strangers = sorted(self._told.keys() - {one.choice for one in asked})
        if strangers:
            raise NotVerified("answers", strangers, Words(f"{len(asked)}, numbered from 0"))
        found = [(one, self._receipt(one.choice)) for one in asked]
        for one, receipt in found:
            self._check(one, receipt)
            expect.check(receipt.signed.body, one.choice)
        first = found[0][1].signed.body
        one_party = Expected(verifier=first.verifier, netuid=first.netuid, genesis=first.genesis)
        for one, receipt in found[1:]:
            one_party.check(receipt.signed.body, one.choice)
        tokens = sum(len(receipt.response.completion.token_ids) for _, receipt in found)
        if self._tokens is not None and self._tokens != tokens:
            raise NotVerified("usage's completion_tokens", self._tokens, tokens)

    def _check(self, one: Wanted, receipt: AnswerReceipt) -> None:
        one.check(receipt.request)
        completion, told = receipt.response.completion, self._told[one.choice]
        try:
            receipts.check(receipt.signed, receipt.request, completion)
        except ReceiptMismatch as error:
            raise NotVerified(
                f"receipt's {error.field}", error.got, error.expected, choice=one.choice
            ) from error
        except (InvalidSignature, MalformedMessage) as error:
            expected = Words(f"that of {receipt.prover}")
            raise NotVerified(
                "receipt's signature", Words(f"another ({error})"), expected, choice=one.choice
            ) from error
        pairs: list[tuple[str, object, object]] = [
            ("completion's request_digest", completion.request_digest, receipt.id),
            ("text", "".join(told.texts), completion.text),
            ("finish_reason", told.finish_reason, _FINISH[completion.finish_reason]),
        ]
        for what, got, expected_value in pairs:
            if got != expected_value:
                raise NotVerified(what, got, expected_value, choice=one.choice)
        self._check_counts(one, receipt, completion)
        if not _in_order(told.logprobs, completion):
            expected = Words("those that the prover signed")
            raise NotVerified("log-probabilities", Words("others"), expected, choice=one.choice)
        self._check_fresh(one, receipt)

    def _check_counts(self, one: Wanted, receipt: AnswerReceipt, completion: Completion) -> None:
        tokens, limit = len(completion.token_ids), receipt.request.sampling.max_tokens
        if not 1 <= tokens <= limit:
            raise NotVerified("tokens", tokens, Words(f"1 to {limit}"), choice=one.choice)
        if completion.logprobs is not None and len(completion.logprobs) != tokens:
            raise NotVerified("log-probabilities", len(completion.logprobs), tokens, choice=one.choice)

    def _check_fresh(self, one: Wanted, receipt: AnswerReceipt) -> None:
        if not self._ledger.first(receipt.id, self._number):
            got = Words(f"one that an earlier answer had ({receipt.id})")
            raise NotVerified("receipt", got, Words("a new one"), choice=one.choice)
        earliest, latest = int(self._began - ALLOWED_SKEW_S), int(self._heard + ALLOWED_SKEW_S)
        if not earliest <= receipt.issued_at <= latest:
            raise NotVerified(
                "receipt's issued_at",
                receipt.issued_at,
                Words(f"from {earliest} to {latest}"),
                advice="set this machine's clock; if it is right, this is an old answer: don't use it, and ask again",
                choice=one.choice,
            )

    def save(self, path: Path, statements: Iterable[ReceiptStatement | None]) -> None:
        """Append all answers to a file for ``targon verify``. Blocks while it writes."""
        from targon.verification import save_answer  # numpy and more, which nothing else here needs

        for receipt, statement in itertools.zip_longest(self.receipts, statements):
            save_answer(path, receipt.request, receipt.response, statement=statement)


def _named(logprobs: Any) -> Iterator[tuple[int | None, float]]:  # noqa: ANN401 - of either form
    """The tokens that a choice names, with their log-probabilities."""
    for token in getattr(logprobs, "content", None) or ():
        yield (token.model_extra or {}).get("token_id"), token.logprob
    for logprob in getattr(logprobs, "token_logprobs", None) or ():
        yield None, logprob


def _in_order(told: list[tuple[int | None, float]], completion: Completion) -> bool:
    """Whether all tokens that were named are the completion's, in its order; some may not have been named."""
    if not told:
        return True
    signed = zip(completion.token_ids, completion.logprobs or (), strict=True) if completion.logprobs else ()
    left = iter(signed)
    return all(
        any(logprob == own and token in (None, number) for number, own in left) for token, logprob in told
    )
