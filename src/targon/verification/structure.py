"""The first method: is this a whole, well-formed, signed answer to what was asked?

The model is never run. What needs nothing but request and answer comes first (:func:`check_form`):

1. the receipt is the prover's own, and for exactly this request and completion;
2. there is at least one token, and no more than were asked for;
3. an answer that ended by its length has that length; one that ended by a stop string was given some;
4. log-probabilities, where given, are one per token, finite and not positive.

Then what needs the model's vocabulary and tokenizer (:func:`check_structure`):

5. every token id lies in the vocabulary;
6. an end-of-sequence token stands at the end or nowhere, and the finish reason says the same;
7. a stop string ended the answer if and only if the text holds one, and the last token completed it;
8. the text is what the token ids say.

And for whoever was promised a model (:func:`check_model`): the receipt names that model's digest.

The text proves nothing, for it is not signed: it can only be wrong. What rests on the tokenizer counts
against a prover only if the reference engine says, afterwards, that it is still the one that it was.
"""

from __future__ import annotations

import math

from targon.engines import Engine, ModelIdentity
from targon.protocol import receipts
from targon.protocol.errors import ProtocolError
from targon.protocol.messages import Completion, GenerateRequest, GenerateResponse
from targon.protocol.primitives import Digest
from targon.protocol.text import stop_position
from targon.verification.deadline import within
from targon.verification.verdict import Verdict, failed

METHOD = "structure"


def check_form(request: GenerateRequest, response: GenerateResponse) -> Verdict | None:
    """The failure that shows without any engine, or None."""
    completion = response.completion
    try:
        receipts.check(response.receipt, request, completion)
    except ProtocolError as error:
        return failed(METHOD, f"receipt refused: {error}")
    if completion.request_digest != request.digest():
        return failed(METHOD, "the completion names another request than the one that was sent")
    return _check_counts(request, completion) or _check_logprobs(completion)


async def check_structure(
    request: GenerateRequest,
    response: GenerateResponse,
    engine: Engine,
    *,
    deadline_s: float | None = None,
) -> Verdict | None:
    """The failure that an answer's form shows, or None if its form is right.

    Args:
        engine: the reference engine, for its vocabulary and its tokenizer; the model isn't run.
        deadline_s: how long each question to the engine may take; None: as long as it takes.

    Raises:
        EngineUnavailable: if the tokenizer couldn't be asked.
    """
    completion, identity = response.completion, engine.identity
    failure = (
        check_form(request, response)
        or _check_tokens(completion, identity)
        or _check_ending(completion, identity)
    )
    if failure is not None:
        return failure
    failure = await _check_text(request, completion, engine, deadline_s)
    if failure is not None:
        await within(deadline_s, engine.check)
    return failure


def check_model(response: GenerateResponse, promised: Digest) -> Verdict | None:
    """The failure of an answer whose receipt names another model than was promised, or None.

    Args:
        promised: digest of the model that the request means by its name.
    """
    named = response.receipt.body.model_digest
    if named == promised:
        return None
    return failed(METHOD, f"the receipt names a model with digest {named}, expected {promised}")


def _check_counts(request: GenerateRequest, completion: Completion) -> Verdict | None:
    count, limit = len(completion.token_ids), request.sampling.max_tokens
    if count == 0:
        return failed(METHOD, "got no tokens, expected at least one")
    if count > limit:
        return failed(METHOD, f"got {count} tokens, expected at most {limit}")
    if completion.finish_reason == "length" and count != limit:
        return failed(METHOD, f"got finish reason 'length' after {count} tokens, expected {limit}")
    if completion.finish_reason == "stop_string" and not request.sampling.stop:
        return failed(METHOD, "got finish reason 'stop_string', but no stop string was set")
    return None


def _check_tokens(completion: Completion, identity: ModelIdentity) -> Verdict | None:
    ids = completion.token_ids
    inside = min(ids) >= 0 and max(ids) < identity.vocab_size
    outside = None if inside else next(token for token in ids if not 0 <= token < identity.vocab_size)
    if outside is None:
        return None
    return failed(
        METHOD, f"got token id {outside}, expected ids below the vocabulary's {identity.vocab_size}"
    )


def _check_ending(completion: Completion, identity: ModelIdentity) -> Verdict | None:
    ids, reason = completion.token_ids, completion.finish_reason
    early = next((i for i, token in enumerate(ids[:-1]) if token in identity.eos_ids), None)
    if early is not None:
        return failed(
            METHOD, f"got an end-of-sequence token at position {early} of {len(ids)}, expected it last"
        )
    ends = ids[-1] in identity.eos_ids
    if ends != (reason == "stop"):
        what = "an end-of-sequence token" if ends else "no end-of-sequence token"
        return failed(METHOD, f"got finish reason {reason!r} with {what} at the end")
    return None


async def _check_text(
    request: GenerateRequest, completion: Completion, engine: Engine, deadline_s: float | None
) -> Verdict | None:
    stop, ids = request.sampling.stop, completion.token_ids
    if stop:
        before = await within(deadline_s, lambda: engine.text(ids[:-1], ()))
        if stop_position(before, stop) is not None:
            return failed(METHOD, "the answer runs on after one of the stop strings")
    text = await within(deadline_s, lambda: engine.text(ids, ()))
    cut = stop_position(text, stop)
    # An answer that ends in an end-of-sequence token had no stop string before it: checked just above.
    found, claimed = cut is not None, completion.finish_reason == "stop_string"
    if found != claimed:
        what = "holds" if found else "doesn't hold"
        return failed(
            METHOD, f"got finish reason {completion.finish_reason!r}, but the text {what} a stop string"
        )
    return _compare_text(completion.text, text if cut is None else text[:cut])


def _compare_text(got: str, expected: str) -> Verdict | None:
    """The place alone is told: what somebody was answered stands in no log."""
    if got == expected:
        return None
    shared = min(len(got), len(expected))
    place = next((at for at in range(shared) if got[at] != expected[at]), shared)
    return failed(
        METHOD,
        f"the text is not what the token ids say, from character {place} on: got {len(got)} characters in all, "
        f"expected {len(expected)}",
    )


def _check_logprobs(completion: Completion) -> Verdict | None:
    logprobs = completion.logprobs
    if logprobs is None:
        return None
    if len(logprobs) != len(completion.token_ids):
        return failed(METHOD, f"got {len(logprobs)} log-probabilities for {len(completion.token_ids)} tokens")
    if all(map(math.isfinite, logprobs)) and max(logprobs, default=0.0) <= 0.0:
        return None
    bad = next(value for value in logprobs if not (math.isfinite(value) and value <= 0.0))
    return failed(METHOD, f"got log-probability {bad}, expected a finite value ≤ 0")
