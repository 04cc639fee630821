"""What is looked at in every answer before a user may have it: its form, its receipt, that it names the promised
model, and that its text is what its token ids say."""

from __future__ import annotations

from targon.engines import Engine, EngineError
from targon.ledger import Verdict
from targon.protocol.messages import GenerateRequest, GenerateResponse
from targon.verification import check_form, check_model, check_structure

TIMEOUT_S = 5.0
"""Seconds that the reference engine's tokenizer has: a user is waiting."""


class Examination:
    """Looks at answers with the reference engine's tokenizer; the model isn't run."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def look(self, request: GenerateRequest, response: GenerateResponse) -> Verdict | None:
        """The failure that an answer shows, as the verdict on it; None: it shows none.

        Where our own engine can't be asked, the form has to do. The answer is signed, and its audit, if it is drawn
        for one, looks at all of it again; to refuse what was answered would hurt the user, and help nobody.
        """
        try:
            failure = await check_structure(request, response, self._engine, deadline_s=TIMEOUT_S)
        except EngineError:
            failure = check_form(request, response)
        failure = failure or check_model(response, self._engine.identity.model_digest)
        if failure is None:
            return None
        return Verdict(
            attempt=request.attempt_number,
            outcome="fail",
            method=failure.method,
            score=failure.score,
            reason=failure.reason[:2000],
            evidence=failure.evidence,
            replied=True,
        )
