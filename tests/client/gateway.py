"""A gateway's HTTP, with really signed answers of the tiny engine; and it can be made to lie."""

from __future__ import annotations

import json
import random
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from bittensor.keyfiles import Keypair
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from targon.engines import GenerateTask
from targon.protocol import (
    AuditStatement,
    ChatMessage,
    Completion,
    Digest,
    GenerateRequest,
    GenerateResponse,
    ReceiptStatement,
    Sampling,
    countersignatures,
    receipts,
)
from targon.protocol.draws import request_run_key
from targon.protocol.primitives import Block, Hotkey
from tests.tiny_engine import TinyEngine

VERIFIER = Keypair.create_from_uri("//Verifier")
PROVER = Keypair.create_from_uri("//Prover")
GENESIS = "02" * 32
MODEL_DIGEST = "d" * 64
FINISH = {"stop": "stop", "stop_string": "stop", "length": "length"}


@dataclass
class Given:
    """One answer, as the gateway is about to give it. A liar changes it."""

    request: GenerateRequest
    response: GenerateResponse
    pieces: list[str]
    finish_reason: str
    logprobs: list[float] | None
    note: dict[str, Any] = field(default_factory=dict)

    def renote(self) -> None:
        """Let the note say what request and response say."""
        self.note = {
            "receipt_id": self.request.digest(),
            "request": self.request.to_json(),
            "response": self.response.to_json(),
        }


@dataclass
class Reply:
    """All answers to one question."""

    given: list[Given]
    usage: int


Lie = Callable[[Reply], None]


class Gateway:
    """The server's state, which tests change between requests. Its answers are the same in each run.

    Attributes:
        lie: changes what is about to be given.
        asked: header and body of every request.
        statement_lie: changes a statement before it is told.
        audit: what statements say of an audit.
    """

    def __init__(self) -> None:
        self.lie: Lie | None = None
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.statement_lie: Callable[[dict[str, Any]], None] | None = None
        self.audit: AuditStatement | None = None
        self.on_file: dict[str, GenerateResponse] = {}
        self._chance = random.Random(1)
        self.url = ""

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._text, methods=["POST"]),
                Route("/v1/receipts/{receipt_id}", self._receipt),
                Route("/v1/models", self._models),
            ]
        )

    # -- answers ---------------------------------------------------------------------------------------------

    async def answer(self, turns: list[tuple[str, str]], choice: int, body: dict[str, Any]) -> Given:
        """One honest answer, signed by the prover."""
        temperature = body.get("temperature", 1.0)
        longest = body.get("max_tokens") or body.get("max_completion_tokens")
        stop = body.get("stop") or []
        request = GenerateRequest(
            salt=self._chance.randbytes(32).hex(),
            genesis=GENESIS,
            netuid=4,
            verifier=Hotkey(VERIFIER.ss58_address),
            prover=Hotkey(PROVER.ss58_address),
            attempt=f"{len(self.on_file):016x}",
            block=Block(77),
            block_hash="03" * 32,
            log_head="04" * 32,
            model=body["model"],
            messages=tuple(
                ChatMessage(role="system" if role == "developer" else role, content=content)
                for role, content in turns
            ),
            sampling=Sampling(
                dialect="greedy" if temperature == 0 else "targon/1",
                seed=self._chance.randbytes(8).hex(),
                temperature=float(temperature),
                top_p=float(body.get("top_p", 1.0)),
                top_k=body.get("top_k", 0),
                max_tokens=longest or 24,
                stop=(stop,) if isinstance(stop, str) else tuple(stop),
                choice=choice,
            ),
            stream=bool(body.get("stream")),
        )
        task = GenerateTask(request.messages, request.sampling, request_run_key(request))
        steps = [step async for step in TinyEngine().generate(task)]
        completion = Completion(
            salt=self._chance.randbytes(32).hex(),
            request_digest=request.digest(),
            token_ids=tuple(step.token_id for step in steps),
            finish_reason=steps[-1].finish_reason or "length",
            text="".join(step.text for step in steps),
            logprobs=tuple(step.logprob for step in steps if step.logprob is not None),
        )
        response = signed(request, completion)
        given = Given(
            request,
            response,
            [step.text for step in steps],
            FINISH[completion.finish_reason],
            list(completion.logprobs or ()) if body.get("logprobs") not in (None, False) else None,
        )
        given.renote()
        self.on_file[request.digest()] = response
        return given

    async def _reply(self, request: Request, conversations: list[list[tuple[str, str]]]) -> Reply:
        body = await request.json()
        self.asked.append((dict(request.headers), body))
        each = body.get("n") or 1
        given = [
            await self.answer(turns, group * each + number, body)
            for group, turns in enumerate(conversations)
            for number in range(each)
        ]
        reply = Reply(given, sum(len(one.response.completion.token_ids) for one in given))
        if self.lie is not None:
            self.lie(reply)
        if request.headers.get("targon-receipt") != "full":
            for one in given:
                one.note = {"receipt_id": one.note["receipt_id"]} if one.note else {}
        return reply

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        turns = [(turn["role"], _text(turn["content"])) for turn in body["messages"]]
        reply = await self._reply(request, [turns])
        if not body.get("stream"):
            choices = [
                {
                    "index": place,
                    "message": {"role": "assistant", "content": "".join(one.pieces), "refusal": None},
                    "logprobs": _chat_logprobs(one.logprobs),
                    "finish_reason": one.finish_reason,
                    **({"targon": one.note} if one.note else {}),
                }
                for place, one in enumerate(reply.given)
            ]
            return JSONResponse(_whole("chat.completion", body["model"], choices, reply.usage))
        return self._streamed(reply, body, lambda text: {"delta": {"content": text} if text else {}})

    async def _text(self, request: Request) -> Response:
        body = await request.json()
        body.setdefault("max_tokens", 16)
        prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
        reply = await self._reply(request, [[("user", prompt)] for prompt in prompts])
        if not body.get("stream"):
            choices = [
                {
                    "index": place,
                    "text": "".join(one.pieces),
                    "logprobs": None
                    if one.logprobs is None
                    else {
                        "token_logprobs": one.logprobs,
                        "tokens": [""] * len(one.logprobs),
                        "top_logprobs": None,
                        "text_offset": [0] * len(one.logprobs),
                    },
                    "finish_reason": one.finish_reason,
                    **({"targon": one.note} if one.note else {}),
                }
                for place, one in enumerate(reply.given)
            ]
            return JSONResponse(_whole("text_completion", body["model"], choices, reply.usage))
        return self._streamed(reply, body, lambda text: {"text": text})

    def _streamed(
        self, reply: Reply, body: dict[str, Any], said: Callable[[str], dict[str, Any]]
    ) -> StreamingResponse:
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

        async def events() -> AsyncIterator[bytes]:
            longest = max(len(one.pieces) for one in reply.given)
            for place in range(longest):  # side by side
                for index, one in enumerate(reply.given):
                    if place < len(one.pieces):
                        logprobs = one.logprobs and one.logprobs[place : place + 1]
                        choice = {
                            "index": index,
                            "logprobs": _chat_logprobs(logprobs),
                            "finish_reason": None,
                            **said(one.pieces[place]),
                        }
                        yield _event(head | {"choices": [choice]})
            for index, one in enumerate(reply.given):
                choice = {"index": index, "finish_reason": one.finish_reason, "logprobs": None, **said("")}
                yield _event(head | {"choices": [choice | ({"targon": one.note} if one.note else {})]})
            if (body.get("stream_options") or {}).get("include_usage"):
                yield _event(head | {"choices": [], "usage": _usage(reply.usage)})
            yield b"data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    # -- the others ------------------------------------------------------------------------------------------

    async def _receipt(self, request: Request) -> Response:
        self.asked.append((dict(request.headers), {}))
        response = self.on_file.get(request.path_params["receipt_id"])
        if response is None:
            return JSONResponse({"error": {"message": "no such receipt", "code": "not_found"}}, 404)
        told = statement(response, self.audit).to_json()
        if self.statement_lie is not None:
            self.statement_lie(told)
        return JSONResponse(told)

    async def _models(self, request: Request) -> Response:
        self.asked.append((dict(request.headers), {}))
        model = {"id": "tiny", "object": "model", "created": 1, "owned_by": "targon"}
        return JSONResponse({"object": "list", "data": [model]})


def signed(
    request: GenerateRequest,
    completion: Completion,
    *,
    signer: Keypair = PROVER,
    issued_at: int | None = None,
    model_digest: str = MODEL_DIGEST,
) -> GenerateResponse:
    receipt = receipts.issue(
        request,
        completion,
        model_digest=Digest(model_digest),
        issued_at=int(time.time()) if issued_at is None else issued_at,
        salt=secrets.token_bytes(32),
        signer=signer,
    )
    return GenerateResponse(completion=completion, receipt=receipt)


def statement(
    response: GenerateResponse, audit: AuditStatement | None = None, signer: Keypair = VERIFIER
) -> ReceiptStatement:
    countersignature = countersignatures.countersign(
        response.receipt,
        record=int(response.receipt.body.attempt, 16) + 5,
        record_hash=Digest("07" * 32),
        signer=signer,
    )
    return ReceiptStatement(
        receipt=response.receipt, countersignature=countersignature, block=Block(78), audit=audit
    )


@contextmanager
def serving(gateway: Gateway) -> Iterator[Gateway]:
    """A gateway on a port of loopback, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        gateway.app(), log_level="error", lifespan="off", ws="none", timeout_keep_alive=60
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    gateway.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    try:
        yield gateway
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


def _text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _chat_logprobs(logprobs: list[float] | None) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    return {"content": [{"token": "", "logprob": one, "bytes": None, "top_logprobs": []} for one in logprobs]}


def _whole(kind: str, model: str, choices: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    return {
        "id": "x",
        "object": kind,
        "created": 1,
        "model": model,
        "choices": choices,
        "usage": _usage(tokens),
    }


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
