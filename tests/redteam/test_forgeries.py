"""Forged answers are caught by their form, and honest ones are not."""

from __future__ import annotations

import pytest

from targon.redteam.forgeries import FORGERIES, exchange
from targon.verification import check_structure
from targon.verification.transcripts import Transcript
from tests.redteam.conftest import task_of
from tests.tiny_engine import TinyEngine

pytestmark = pytest.mark.anyio

CAUGHT_BY = {
    "wrong-key": "signature",
    "other-request": "request_digest",
    "altered-token": "completion_digest",
}


async def honest(keys, tokens=(3, 4, 5, 6)):
    task = task_of(max_tokens=len(tokens))
    transcript = Transcript.of(1, task, tokens, "length")
    return await exchange(transcript, TinyEngine(), keys)


async def test_an_honest_exchange_is_well_formed(keys):
    sent = await honest(keys)
    assert await check_structure(sent.request, sent.response, TinyEngine()) is None


def test_every_forgery_is_tried():
    assert set(CAUGHT_BY) == set(FORGERIES)


@pytest.mark.parametrize("name", sorted(FORGERIES))
@pytest.mark.parametrize("tokens", [(3,), (3, 4, 5, 6)])
async def test_a_forgery_is_refused_for_what_it_forged(keys, name, tokens):
    sent = await honest(keys, tokens)
    verdict = await check_structure(sent.request, FORGERIES[name](sent, keys), TinyEngine())
    assert verdict is not None
    assert verdict.outcome == "fail"
    assert CAUGHT_BY[name] in verdict.reason
