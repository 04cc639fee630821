"""Vectors of what an oracle says for its engine to verifiers that have none."""

from __future__ import annotations

from typing import Final

import numpy as np

from targon.protocol import references
from targon.protocol.references import ReferenceAnswer, ReferenceTask
from targon.protocol.replay import Replay
from targon.protocol.vectors.messages import ALICE, BOB, REQUEST
from targon.protocol.vectors.rule import Json, Rule

_SAMPLING: Final = {
    "dialect": "targon/1",
    "seed": "0000000000000007",
    "temperature": 0.8,
    "top_p": 1.0,
    "top_k": 0,
    "max_tokens": 8,
    "stop": [],
    "choice": 0,
}
TASK_JSON: Final = {
    "kind": "replay",
    "messages": [{"role": "user", "content": "Why are there tides?"}],
    "token_ids": [5, 9],
    "sampling": _SAMPLING,
    "run_key": "00000000000000aa",
}
TASK: Final = ReferenceTask.from_json(TASK_JSON)

RESULT: Final = references.replay_result(
    Replay(
        best_ids=np.array([5, 7]),
        gaps=np.array([3.5, 0.125]),
        margins=np.array([0.0, 10.0]),
        among=np.array([True, False]),
        unsure=np.array([False, False]),
        on_cut=np.array([False, True]),
        tail_mass=np.array([0.25, np.nan]),
        in_tail=np.array([False, False]),
        rivals=np.array([0xFFFFFFF, 0xFFFFF98], dtype=np.uint32),
        claimed_rivals=np.array([0, 1], dtype=np.uint8),
    ),
    np.array([-0.5, -np.inf], dtype=np.float32),
    np.array([0, 3], dtype=np.int32),
    prompt_tokens=31,
    top_k=0,
)
RESULT_JSON: Final = RESULT.to_json()

BODY_JSON: Final = {
    "spec_version": 1,
    "genesis": REQUEST.genesis,
    "netuid": REQUEST.netuid,
    "oracle": ALICE,
    "verifier": BOB,
    "block": REQUEST.block,
    "task": TASK.digest(),
    "model_digest": "5e" * 32,
    "engine": "transformers 5.19.0",
    "dtype": "float32",
    "result": RESULT.digest(),
}
SIGNATURE: Final = (
    "bc2f3185bc67b5ac2cd718dfb011d1322368fb5b0e01aa3da39ebd18c1019422"
    "55218f35075ada4dae4a2ca874b4a725ce1afb8eb2aab536ffa3a61df97da583"
)
"""By ``//Alice`` over the body above; kept, because sr25519 signatures are randomised."""


def _task(given: Json) -> Json:
    task = ReferenceTask.from_json(given)
    return {"canonical": task.to_bytes().decode(), "digest": task.digest()}


def _asked(kind: str, **fields: Json) -> Json:
    return {"kind": kind} | fields


TASKS = Rule(
    name="reference_tasks",
    about="A task for an oracle's engine (`POST /v1/reference`): its canonical form, with the fields that it "
    "doesn't have, and its digest. Each kind has the fields of its own, and no others.",
    inputs={
        "identity": _asked("identity"),
        "tokenizer": _asked("tokenizer"),
        "prompt": _asked("prompt", messages=TASK_JSON["messages"]),
        "text": _asked("text", token_ids=[5, 9]),
        "replay": TASK_JSON,
        "ground truth": _asked(
            "ground_truth", messages=TASK_JSON["messages"], sampling=_SAMPLING, run_key="00000000000000aa"
        ),
        "a prompt without messages": _asked("prompt"),
        "a prompt with tokens": _asked("prompt", messages=TASK_JSON["messages"], token_ids=[1]),
        "a replay without tokens": TASK_JSON | {"token_ids": []},
        "a replay without a run key": TASK_JSON | {"run_key": None},
        "an identity with a seed": _asked("identity", sampling=_SAMPLING),
        "another kind": _asked("scores"),
        "a negative token": TASK_JSON | {"token_ids": [-1]},
    },
    evaluate=_task,
)


def _stated(
    *, signature: str = SIGNATURE, result: Json = None, task: Json = None, asks: str = BOB, **body: Json
) -> Json:
    return {
        "task": TASK_JSON if task is None else task,
        "verifier": asks,
        "result": RESULT_JSON if result is None else result,
        "body": BODY_JSON | body,
        "signature": signature,
    }


def _answer(given: Json) -> Json:
    answer = ReferenceAnswer.from_json(
        {"result": given["result"], "statement": {"body": given["body"], "signature": given["signature"]}}
    )
    references.check_reference(
        answer,
        ReferenceTask.from_json(given["task"]),
        genesis=REQUEST.genesis,
        netuid=REQUEST.netuid,
        oracle=ALICE,
        verifier=given["verifier"],
    )
    assert isinstance(answer.result, references.ReplayResult)
    columns = references.columns_of(answer.result)
    return {
        "valid": True,
        "best_ids": columns["best_ids"].tolist(),
        "margins": columns["margins"].tolist(),
        "rivals": columns["rivals"].tolist(),
        "signed_bytes": references.signed_reference(answer.statement.body).hex(),
    }


ANSWERS = Rule(
    name="references",
    about="What an oracle answers to a task, as checked by the verifier that asked: here a replay, some of whose "
    "columns are shown as numbers. What is signed is 'targon/reference/1', a zero byte, and the canonical "
    "form of the body.",
    inputs={
        "valid": _stated(),
        "to another task": _stated(task=TASK_JSON | {"token_ids": [5, 8]}),
        "for another verifier": _stated(asks=ALICE),
        "another result": _stated(result=RESULT_JSON | {"prompt_tokens": 32}),
        "a column too short": _stated(result=RESULT_JSON | {"gaps": ""}),
        "another network's": _stated(netuid=5),
        "another oracle's": _stated(oracle=BOB),
        "another block": _stated(block=REQUEST.block + 1),
        "another model": _stated(model_digest="00" * 32),
        "no engine": _stated(engine=""),
        "signature too short": _stated(signature="00" * 63),
    },
    evaluate=_answer,
)

RULES = (TASKS, ANSWERS)
