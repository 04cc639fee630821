"""What an oracle says for its engine: for one task and one verifier, under its own signature, and in whole columns."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from bittensor.keyfiles import Keypair
from pydantic import ValidationError

from targon.protocol.errors import InvalidSignature, MalformedMessage, ReferenceMismatch
from targon.protocol.messages import ChatMessage, Sampling
from targon.protocol.primitives import Block, Digest, Hotkey, TokenId
from targon.protocol.references import (
    COLUMNS,
    GroundTruthResult,
    PromptResult,
    ReferenceAnswer,
    ReferenceBody,
    ReferenceResult,
    ReferenceTask,
    ReplayResult,
    TextResult,
    check_reference,
    columns_of,
    signed_reference,
    state,
)

ORACLE = Keypair.create_from_uri("//Oracle")
MALLORY = Keypair.create_from_uri("//Mallory")
ORACLES = Hotkey(ORACLE.ss58_address)
VERIFIER = Hotkey(Keypair.create_from_uri("//Alice").ss58_address)
OTHER = Hotkey(MALLORY.ss58_address)
GENESIS = Digest("22" * 32)
SAID = (ChatMessage(role="user", content="Why?"),)
SAMPLING = Sampling(seed="0000000000000001", temperature=0.8, max_tokens=8)
KEY = "0000000000000001"
PROMPT = ReferenceTask(kind="prompt", messages=SAID)
REPLAY = ReferenceTask(
    kind="replay",
    messages=SAID,
    token_ids=tuple(map(TokenId, (5, 6, 7))),
    sampling=SAMPLING,
    run_key=KEY,
)


def told(
    task: ReferenceTask, result: ReferenceResult, signer: Keypair = ORACLE, /, **changes: Any
) -> ReferenceAnswer:
    body = {
        "genesis": GENESIS,
        "netuid": 4,
        "oracle": ORACLES,
        "verifier": VERIFIER,
        "block": Block(100),
        "task": task.digest(),
        "model_digest": "33" * 32,
        "engine": "tiny 1",
        "dtype": "float32",
        "result": result.digest(),
    }
    return ReferenceAnswer(result=result, statement=state(ReferenceBody(**(body | changes)), signer))


def check(answer: ReferenceAnswer, task: ReferenceTask = PROMPT) -> None:
    check_reference(answer, task, genesis=GENESIS, netuid=4, oracle=ORACLES, verifier=VERIFIER)


def a_replay(positions: int = 3, **columns: str) -> ReplayResult:
    zeros = {
        name: base64.b64encode(bytes(positions * kind.itemsize)).decode() for name, kind in COLUMNS.items()
    }
    return ReplayResult(positions=positions, prompt_tokens=1, top_k=0, **(zeros | columns))


ANSWER = PromptResult(token_ids=(TokenId(1), TokenId(2)))


def test_an_answer_to_the_task_for_the_verifier_is_accepted() -> None:
    check(told(PROMPT, ANSWER))
    check(told(REPLAY, a_replay()), REPLAY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("genesis", "23" * 32),
        ("netuid", 5),
        ("oracle", OTHER),
        ("verifier", OTHER),
        ("task", "44" * 32),
        ("result", "55" * 32),
    ],
)
def test_what_speaks_of_something_else_is_named(field: str, value: object) -> None:
    with pytest.raises(ReferenceMismatch) as error:
        check(told(PROMPT, ANSWER, **{field: value}))
    assert (error.value.field, error.value.got) == (field, value)


def test_an_answer_is_its_oracles_own() -> None:
    with pytest.raises(InvalidSignature):
        check(told(PROMPT, ANSWER, MALLORY))


def test_what_is_signed_says_what_it_is_for() -> None:
    body = told(PROMPT, ANSWER).statement.body
    assert signed_reference(body) == b"targon/reference/1\x00" + body.to_bytes()


def test_a_result_of_another_kind_is_none() -> None:
    with pytest.raises(ReferenceMismatch, match="kind"):
        check(told(PROMPT, TextResult(text="Because.")))


@pytest.mark.parametrize("positions", [2, 4])
def test_a_replay_is_of_every_token_that_was_claimed(positions: int) -> None:
    with pytest.raises(ReferenceMismatch, match="positions"):
        check(told(REPLAY, a_replay(positions)), REPLAY)


@pytest.mark.parametrize("name", ["messages", "token_ids", "sampling", "run_key"])
def test_a_task_has_the_fields_of_its_kind_and_no_others(name: str) -> None:
    empty: Any = () if name in ("messages", "token_ids") else None
    with pytest.raises(ValidationError, match=f"{name}: got none"):
        ReferenceTask.model_validate(REPLAY.model_dump() | {name: empty})
    with pytest.raises(ValidationError, match=f"{name}: got some"):
        ReferenceTask(kind="identity", **{name: getattr(REPLAY, name)})


@pytest.mark.parametrize("name", ["token_ids", "texts", "logprobs"])
def test_a_ground_truth_says_all_of_each_token(name: str) -> None:
    whole = {"token_ids": (1, 2), "texts": ("a", "b"), "logprobs": (-1.0, -2.0), "finish_reason": "length"}
    GroundTruthResult.model_validate(whole)
    with pytest.raises(ValidationError, match="one of each token"):
        GroundTruthResult.model_validate(whole | {name: whole[name][:1]})


def test_columns_are_read_as_they_were_written() -> None:
    gaps = np.array([0.5, np.inf, np.nan])
    found = columns_of(a_replay(gaps=base64.b64encode(gaps.astype("<f8").tobytes()).decode()))
    assert np.array_equal(found["gaps"], gaps, equal_nan=True)
    assert {name: column.dtype for name, column in found.items()} == COLUMNS


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ({"gaps": "!!!!"}, "gaps: expected base64"),
        ({"gaps": base64.b64encode(bytes(16)).decode()}, "gaps: got 16 bytes, expected 8 for each of 3"),
        ({"gaps": base64.b64encode(bytes(32)).decode()}, "gaps: got 32 bytes, expected 8 for each of 3"),
        ({"among": base64.b64encode(b"\x00\x01\x02").decode()}, "among: got bytes that are neither 0 nor 1"),
    ],
)
def test_columns_that_are_none_are_named(column: dict[str, str], problem: str) -> None:
    with pytest.raises(MalformedMessage, match=problem):
        columns_of(a_replay(**column))
