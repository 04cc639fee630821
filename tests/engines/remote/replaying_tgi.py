"""A Text Generation Inference server without a model: it replays the answers that real ones were recorded to give.

It reads TGI's own schemas and the recordings from the folder ``tgi`` (``scripts/tgi_schemas.py``), holds every request
to the schemas, and answers in its terms. What it says is a recording's tokens over and over, as many as were
asked for; a seed makes it begin elsewhere in them. As a process, it has the default model's tokenizer:

    python -m tests.engines.remote.replaying_tgi --port 8080
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

SPECS = Path(__file__).parent / "tgi"
MODEL_ID = "SmolLM2-135M-Instruct"
PREFILL_LOGPROB = -1.5
"""Of each prompt token but the first: the recordings have none."""

Json = Any


class Specification:
    """What an OpenAPI document says of JSON values."""

    def __init__(self, document: Json) -> None:
        self._schemas = document["components"]["schemas"]

    def schema(self, name: str) -> Json:
        return {"$ref": f"#/components/schemas/{name}"}

    def wrong(self, value: Json, name: str) -> list[str]:
        """What is wrong with a value of a named type; nothing if it conforms."""
        return list(self._wrong(value, self.schema(name), name))

    def example(self, name: str) -> Json:
        """The value that the examples of a type's properties make."""
        properties = self._schemas[name]["properties"]
        return {key: _example(schema) for key, schema in properties.items()}

    def _wrong(self, value: Json, schema: Json, where: str, *, closed: bool = True) -> Iterator[str]:
        """``closed``: whether an object may have no properties but those that the schema names."""
        if value is None and schema.get("nullable"):
            return
        if "$ref" in schema:
            yield from self._wrong(value, self._resolved(schema), where, closed=closed)
            return
        for part in schema.get("allOf", ()):
            yield from self._wrong(value, part, where, closed=False)
        if "oneOf" in schema:
            fits = [not list(self._wrong(value, one, where, closed=False)) for one in schema["oneOf"]]
            if not any(fits):
                yield f"{where}: got {value!r}, expected one of {len(fits)} forms"
        if "type" in schema and not _has_type(value, schema["type"]):
            yield f"{where}: got {value!r}, expected {schema['type']}"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where}: got {value!r}, expected one of {schema['enum']}"
        yield from _out_of_range(value, schema, where)
        if isinstance(value, list):
            for place, item in enumerate(value):
                yield from self._wrong(item, schema.get("items", {}), f"{where}[{place}]")
        if isinstance(value, dict):
            yield from self._wrong_properties(value, schema, where, closed=closed)

    def _wrong_properties(self, value: Json, schema: Json, where: str, *, closed: bool) -> Iterator[str]:
        for key in schema.get("required", ()):
            if key not in value:
                yield f"{where}.{key}: got none, expected it"
        for key, item in value.items():
            if key in schema.get("properties", {}):
                yield from self._wrong(item, schema["properties"][key], f"{where}.{key}")
        names = self._names(schema)
        for key in value if closed and names else ():
            if key not in names:
                yield f"{where}.{key}: got it, expected some of {sorted(names)}"

    def _names(self, schema: Json) -> set[str]:
        schema = self._resolved(schema)
        parts = [*schema.get("allOf", ()), *schema.get("oneOf", ())]
        return set(schema.get("properties", {})).union(*map(self._names, parts))

    def _resolved(self, schema: Json) -> Json:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return schema


def _has_type(value: Json, name: str) -> bool:
    if name in ("integer", "number"):
        return isinstance(value, int if name == "integer" else (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "boolean": bool, "array": list, "object": dict}[name])


def _out_of_range(value: Json, schema: Json, where: str) -> Iterator[str]:
    if isinstance(value, int | float):
        if "minimum" in schema and value < schema["minimum"]:
            yield f"{where}: got {value}, expected at least {schema['minimum']}"
        if "maximum" in schema and value > schema["maximum"]:
            yield f"{where}: got {value}, expected at most {schema['maximum']}"
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            yield f"{where}: got {value}, expected more than {schema['exclusiveMinimum']}"
    if isinstance(value, list) and len(value) > schema.get("maxItems", len(value)):
        yield f"{where}: got {len(value)} items, expected at most {schema['maxItems']}"


def _example(schema: Json) -> Json:
    """An example as the schema's type: the document has all of them as strings."""
    text = schema.get("example")
    if text == "null":
        return None
    return int(text) if schema["type"] == "integer" else text


@functools.cache
def specification() -> Specification:
    return Specification(json.loads((SPECS / "schemas.json").read_text()))


def recordings() -> dict[str, Json]:
    """The recorded answers of real servers to ``/generate``, by name."""
    folder = SPECS / "answers"
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


class Read(NamedTuple):
    """A token of a text, and the bytes of the text that it stands for."""

    id: int
    text: str = ""
    start: int = 0
    stop: int = 0


class ReplayingTgi:
    """The server.

    Args:
        read: a text to tokens, those that the tokenizer adds to any text included.
        render: turns of a conversation to text; None: the server has no chat template.
        added: how many tokens ``read`` adds in front.
        text_of: the text that generated ids are to have; None: the recorded one.
        recording: the name of the one that is replayed.
    """

    def __init__(
        self,
        read: Callable[[str], Sequence[Read]],
        *,
        render: Callable[[list[dict[str, str]]], str] | None = None,
        added: int = 0,
        text_of: Callable[[list[int]], str] | None = None,
        recording: str = "test_flash_llama_simple",
    ) -> None:
        self._read = read
        self._render = render
        self._added = added
        self._text_of = text_of
        self._tokens: list[Json] = recordings()[recording]["details"]["tokens"]
        self.specification = specification()
        self.info = self.specification.example("Info") | {"model_id": MODEL_ID}
        self.requests: list[tuple[str, Json]] = []
        """Route and body of each request that was served or refused."""
        self.answers: list[tuple[str, Json]] = []
        """Name of the type, and value, of everything that was answered."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/info", self._info)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/chat_tokenize", self._chat_tokenize)
        app.router.add_post("/generate", self._generate)
        app.router.add_post("/generate_stream", self._generate_stream)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _info(self, request: web.Request) -> web.Response:
        return self._answer("Info", self.info)

    async def _tokenize(self, request: web.Request) -> web.Response:
        body, wrong = await self._body(request, "GenerateRequest")
        if wrong:
            return self._refuse(wrong, status=422)
        return self._answer("TokenizeResponse", [one._asdict() for one in self._read(body["inputs"])])

    async def _chat_tokenize(self, request: web.Request) -> web.Response:
        body, wrong = await self._body(request, "ChatRequest")
        if wrong:
            return self._refuse(wrong, status=422)
        if self._render is None:
            return self._refuse("Template error: template not found", kind="template_error", status=422)
        text = self._render(body["messages"])
        tokens = [one._asdict() for one in self._read(text)[self._added :]]
        return self._answer("ChatTokenizeResponse", {"tokenize_response": tokens, "templated_text": text})

    async def _generate(self, request: web.Request) -> web.Response:
        body, wrong = await self._body(request, "GenerateRequest")
        wrong = wrong or self._refusal(body, streamed=False)
        if wrong:
            return self._refuse(wrong, status=422)
        asked = body.get("parameters", {})
        tokens = self._said(asked)
        answer = {"generated_text": "".join(token["text"] for token in tokens)}
        if asked.get("details") or asked.get("decoder_input_details"):
            answer["details"] = {
                "finish_reason": "length",
                "generated_tokens": len(tokens),
                "prefill": self._prefill(body["inputs"]) if asked.get("decoder_input_details") else [],
                "seed": asked.get("seed"),
                "tokens": tokens,
            }
        return self._answer("GenerateResponse", answer)

    async def _generate_stream(self, request: web.Request) -> web.StreamResponse:
        body, wrong = await self._body(request, "GenerateRequest")
        if wrong:
            return self._refuse(wrong, status=422)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        refusal = self._refusal(body, streamed=True)
        if refusal:
            error = {"error": f"Input validation error: {refusal}", "error_type": "validation"}
            await self._send(response, "ErrorResponse", error)
        else:
            for event in self._events(body):
                await self._send(response, "StreamResponse", event)
        await response.write_eof()
        return response

    def _events(self, body: Json) -> Iterator[Json]:
        """A recorded answer, token by token, as the router streams one."""
        asked = body.get("parameters", {})
        tokens = self._said(asked)
        for place, token in enumerate(tokens, start=1):
            event = {"index": place, "token": token, "generated_text": None, "details": None}
            if asked.get("top_n_tokens"):
                event["top_tokens"] = [token]
            if place == len(tokens):
                event["generated_text"] = "".join(one["text"] for one in tokens)
                event["details"] = {
                    "finish_reason": "length",
                    "generated_tokens": place,
                    "seed": asked.get("seed"),
                    "input_length": len(self._read(body["inputs"])),
                }
            yield event

    def _said(self, asked: Json) -> list[Json]:
        """As many tokens as are asked for."""
        start = (asked.get("seed") or 0) % len(self._tokens)
        count = asked.get("max_new_tokens") or 20
        tokens = [dict(one) for one in itertools.islice(itertools.cycle(self._tokens), start, start + count)]
        if self._text_of is not None:
            said, ids = "", []
            for token in tokens:
                ids.append(token["id"])
                text = self._text_of(ids)
                # half a character is kept back until it is whole
                token["text"] = "" if text.endswith("\ufffd") else text[len(said) :]
                said += token["text"]
        return tokens

    def _prefill(self, text: str) -> list[Json]:
        return [
            {"id": one.id, "text": one.text, "logprob": PREFILL_LOGPROB if place else None}
            for place, one in enumerate(self._read(text))
        ]

    def _refusal(self, body: Json, *, streamed: bool) -> str:
        """What the router says of a request that fits the specification, but that it doesn't serve."""
        asked = body.get("parameters", {})
        length, most = len(self._read(body["inputs"])), self.info["max_total_tokens"]
        if not body["inputs"]:
            return "`inputs` cannot be empty"
        if streamed and asked.get("decoder_input_details"):
            return "`decoder_input_details` == true is not supported when streaming tokens"
        if (asked.get("top_p") or 0.5) >= 1.0:
            return "`top_p` must be > 0.0 and < 1.0"
        if asked.get("max_new_tokens") == 0:
            return "`max_new_tokens` must be strictly positive"
        if length + (asked.get("max_new_tokens") or 20) > most:
            return (
                f"`inputs` tokens + `max_new_tokens` must be <= {most}. Given: {length} `inputs` tokens and "
                f"{asked['max_new_tokens']} `max_new_tokens`"
            )
        return ""

    async def _body(self, request: web.Request, name: str) -> tuple[Json, str]:
        """The body of a request, and what the specification has against it."""
        body = await request.json()
        self.requests.append((request.path, body))
        return body, "; ".join(self.specification.wrong(body, name))

    def _answer(self, name: str, value: Json, *, status: int = 200) -> web.Response:
        self.answers.append((name, value))
        return web.json_response(value, status=status)

    def _refuse(self, why: str, *, status: int, kind: str = "validation") -> web.Response:
        return self._answer("ErrorResponse", {"error": why, "error_type": kind}, status=status)

    async def _send(self, response: web.StreamResponse, name: str, value: Json) -> None:
        self.answers.append((name, value))
        await response.write(b"data:" + json.dumps(value).encode() + b"\n\n")


def default_model_tgi() -> ReplayingTgi:
    """A server that reads text as the default model does. Blocks for a second or two."""
    from targon.engines.chat import ChatTokenizer
    from targon.engines.default_model import ensure_default_model
    from targon.protocol.messages import ChatMessage

    chat = ChatTokenizer(ensure_default_model())

    def read(text: str) -> list[Read]:
        return [Read(id_) for id_ in chat.encode_text(text)]

    def render(turns: list[dict[str, str]]) -> str:
        return chat.render([ChatMessage.model_validate(turn) for turn in turns])

    return ReplayingTgi(read, render=render, text_of=chat.decode)


async def _serve(port: int) -> None:
    runner = web.AppRunner(default_model_tgi().app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    host, port = runner.addresses[0][:2]
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Replay recorded answers of Text Generation Inference.")
    parser.add_argument("--port", type=int, default=0, help="0: one that is free")
    asyncio.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
