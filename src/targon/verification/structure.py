"""The first method: is this a whole, well-formed, signed answer to what was asked?

It needs no model. In the order in which they are checked:

1. the receipt is the prover's own, and for exactly this request and completion;
2. there is at least one token, and no more than were asked for;
3. every token id lies in the vocabulary;
4. an end-of-sequence token stands at the end or nowhere, and the finish reason says the same;
5. log-probabilities, where given, are one per token, finite and not positive;
6. a stop string ended the answer if and only if the text holds one, and the last token completed it.
"""

from __future__ import annotations

import math

from targon.engines import Engine, ModelIdentity
from targon.protocol import receipts
from targon.protocol.errors import ProtocolError
from targon.protocol.messages import Completion, GenerateRequest, GenerateResponse
from targon.protocol.text import stop_position
from targon.verification.verdict import Verdict, failed

METHOD = "structure"


async def check_structure(
    request: GenerateRequest, response: GenerateResponse, engine: Engine
) -> Verdict | None:
    """The failure that an answer's form shows, or None if its form is right.

    Args:
        engine: the reference engine, for its vocabulary and its tokenizer; the model isn't run.

    Raises:
        EngineUnavailable: if the tokenizer was needed and couldn't be asked.
    """
    completion, identity = response.completion, engine.identity
    try:
        receipts.check(response.receipt, request, completion)
    except ProtocolError as error:
        return failed(METHOD, f"receipt refused: {error}")
    if completion.request_digest != request.digest():
        return failed(METHOD, "the completion names another request than the one that was sent")
    return (
        _check_tokens(request, completion, identity)
        or _check_ending(request, completion, identity)
        or _check_logprobs(completion)
        or await _check_stop_strings(request, completion, engine)
    )


def _check_tokens(
    request: GenerateRequest, completion: Completion, identity: ModelIdentity
) -> Verdict | None:
    count, limit = len(completion.token_ids), request.sampling.max_tokens
    if count == 0:
        return failed(METHOD, "got no tokens, expected at least one")
    if count > limit:
        return failed(METHOD, f"got {count} tokens, expected at most {limit}")
    outside = [token for token in completion.token_ids if token >= identity.vocab_size]
    if outside:
        return failed(
            METHOD, f"got token id {outside[0]}, expected ids below the vocabulary's {identity.vocab_size}"
        )
    return None


def _check_ending(
    request: GenerateRequest, completion: Completion, identity: ModelIdentity
) -> Verdict | None:
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
    if reason == "length" and len(ids) != request.sampling.max_tokens:
        return failed(
            METHOD,
            f"got finish reason 'length' after {len(ids)} tokens, expected {request.sampling.max_tokens}",
        )
    return None


async def _check_stop_strings(
    request: GenerateRequest, completion: Completion, engine: Engine
) -> Verdict | None:
    stop, ids = request.sampling.stop, completion.token_ids
    claimed = completion.finish_reason == "stop_string"
    if not stop:
        return (
            failed(METHOD, "got finish reason 'stop_string', but no stop string was set") if claimed else None
        )
    if stop_position(await engine.text(ids[:-1], ()), stop) is not None:
        return failed(METHOD, "the answer runs on after one of the stop strings")
    # An answer that ends in an end-of-sequence token had no stop string before it: checked just above.
    found = completion.finish_reason != "stop" and stop_position(await engine.text(ids, ()), stop) is not None
    if found != claimed:
        what = "holds" if found else "doesn't hold"
        return failed(
            METHOD, f"got finish reason {completion.finish_reason!r}, but the text {what} a stop string"
        )
    return None


def _check_logprobs(completion: Completion) -> Verdict | None:
    logprobs = completion.logprobs
    if logprobs is None:
        return None
    if len(logprobs) != len(completion.token_ids):
        return failed(METHOD, f"got {len(logprobs)} log-probabilities for {len(completion.token_ids)} tokens")
    bad = next((value for value in logprobs if not (math.isfinite(value) and value <= 0.0)), None)
    return None if bad is None else failed(METHOD, f"got log-probability {bad}, expected a finite value ≤ 0")
