"""The routes that don't generate, and the OpenAPI document of all of them.

The two that do are declared here as well, with the models by which :mod:`targon.gateway.api.reading` checks them, so
that the document is what holds; they are served before a request comes here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.routing import Route

from targon import __version__
from targon.gateway.api.page import document_page
from targon.gateway.api.replies import (
    ChatCompletion,
    ErrorReply,
    Health,
    Model,
    ModelList,
    ModelNote,
    TextCompletion,
)
from targon.gateway.api.requests import ChatCompletionRequest, CompletionRequest
from targon.gateway.keyring import KeyRing, require
from targon.gateway.ports import Orders
from targon.gateway.receipts import CONTENT_TYPE, statement_of
from targon.gateway.refusals import ApiError, invalid, of_service
from targon.protocol.filed import ReceiptStatement
from targon.protocol.primitives import Digest
from targon.transport.errands import DeskError, OfferedModel, UnknownModel

DESCRIPTION = """\
OpenAI's API, over a network of provers. Each answer carries the id of a receipt that its prover signed, in the header
`Targon-Receipt-Id` and beside its finish reason; with the request header `Targon-Receipt: full` the whole signed answer
comes along, to be verified offline."""

_BEARER = HTTPBearer(auto_error=False, scheme_name="key", description="An API key of this gateway: `tg-…`")

_WRONG: dict[int, str] = {
    400: "The request has to be changed: `param` names the part, `code` what is wrong with it.",
    401: "No API key, or not a good one.",
    403: "The API key doesn't reach so far.",
    404: "There is nothing by that name.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body isn't JSON in UTF-8.",
    429: "A limit of the API key; `Retry-After` says when to come back.",
    500: "Something is wrong in the gateway.",
    502: "No good answer came from the provers that were asked.",
    503: "Nobody can serve it now; `Retry-After` says when to come back.",
    504: "No answer came in time.",
}
_GENERATION = (400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504)
_STREAM = "Server-sent events, if `stream` is true: a chunk each, then `[DONE]`."


def make_app(
    orders: Orders,
    keys: KeyRing,
    *,
    created: int,
    unready: Callable[[], str | None],
    more: Sequence[Route] = (),
) -> FastAPI:
    """The application.

    Args:
        created: seconds since 1970-01-01 UTC, shown as every model's.
        unready: why no new requests should be sent here; None: they may.
        more: further routes, which the document doesn't name.
    """

    async def with_a_key(request: Request) -> AsyncIterator[None]:
        with keys.account(request.headers.get("authorization")).looking():
            yield

    async def who_may_read_receipts(request: Request) -> AsyncIterator[None]:
        account = keys.account(request.headers.get("authorization"))
        require(account, "receipts")
        with account.looking():
            yield

    known = [Depends(_BEARER), Depends(with_a_key)]
    reader = [Depends(_BEARER), Depends(who_may_read_receipts)]
    app = FastAPI(
        title="TARGON gateway",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # a redirect would name a host that the request claims, and send its body there
        redirect_slashes=False,
        exception_handlers={
            ApiError: _api_error,
            DeskError: _api_error,
            HTTPException: _http_error,
            RequestValidationError: _malformed,
            Exception: _bug,
        },
    )

    @app.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        dependencies=known,
        responses=_wrong(*_GENERATION, stream=True),
    )
    async def chat(
        body: ChatCompletionRequest,  # noqa: ARG001 - declared for the document
    ) -> Response:
        """Answer a conversation."""
        raise AssertionError("served before it comes here")

    @app.post(
        "/v1/completions",
        response_model=TextCompletion,
        dependencies=known,
        responses=_wrong(*_GENERATION, stream=True),
    )
    async def complete(
        body: CompletionRequest,  # noqa: ARG001 - declared for the document
    ) -> Response:
        """Answer a prompt."""
        raise AssertionError("served before it comes here")

    @app.get("/v1/models", response_model=ModelList, dependencies=known, responses=_wrong(401, 429))
    async def models() -> ModelList:
        """List the models that are served now."""
        return ModelList(data=[_model(one, created) for one in orders.models()])

    @app.get(
        "/v1/models/{model:path}",
        response_model=Model,
        dependencies=known,
        responses=_wrong(401, 404, 429),
    )
    async def model(model: str) -> Model:
        """One model."""
        offered = orders.models()
        for one in offered:
            if one.name == model:
                return _model(one, created)
        raise UnknownModel(model, tuple(one.name for one in offered))

    @app.get(
        "/v1/receipts/{receipt_id}",
        response_model=ReceiptStatement,
        dependencies=reader,
        responses=_wrong(400, 401, 403, 404, 429, 503),
    )
    async def receipt(
        receipt_id: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="64 hexadecimal digits")],
    ) -> Response:
        """What the prover signed, the verifier's countersignature, and the verdict if there is one."""
        filed = await orders.receipt(Digest(receipt_id))
        if filed is None:
            raise ApiError(
                404,
                "receipt_not_found",
                f"there is no receipt {receipt_id} here: its answer never became whole, or another gateway gave it",
                param="receipt_id",
            )
        return Response(statement_of(filed), media_type=CONTENT_TYPE)

    @app.get(
        "/healthz", response_model=Health, responses={503: {"model": Health, "description": "It isn't."}}
    )
    async def health() -> Response:
        """Whether requests should be sent here."""
        why = unready()
        return JSONResponse({"status": why or "ok"}, 503 if why else 200)

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return JSONResponse(document_of(app))

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(
            document_page(document_of(app)),
            headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    app.router.routes.extend(more)
    return app


def document_of(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, without the status that FastAPI would give what it can't read: ours is 400."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    return document


def _wrong(*statuses: int, stream: bool = False) -> dict[int | str, dict[str, Any]]:
    replies: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorReply, "description": _WRONG[status]} for status in statuses
    }
    if stream:
        event = {"schema": {"type": "string"}}
        replies[200] = {"description": f"The answers. {_STREAM}", "content": {"text/event-stream": event}}
    return replies


def _model(offered: OfferedModel, created: int) -> Model:
    note = ModelNote(model_digest=offered.model_digest, context_length=offered.context_length)
    return Model(id=offered.name, created=created, targon=note)


def _say(error: ApiError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return JSONResponse(error.to_json(), error.status, headers=headers)


async def _api_error(_: Request, error: ApiError | DeskError) -> Response:
    return _say(error if isinstance(error, ApiError) else of_service(error))


async def _http_error(request: Request, error: HTTPException) -> Response:
    path = ascii(request.url.path)[:80]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another")
        said = ApiError(405, "method_not_allowed", f"got {request.method}, expected {allowed} for {path}")
        reply = _say(said)
        reply.headers["allow"] = allowed
        return reply
    return _say(
        ApiError(error.status_code, "not_found", f"there is nothing at {path}; /docs lists what there is")
    )


async def _malformed(_: Request, error: RequestValidationError) -> Response:
    problem = error.errors()[0]
    name = str(problem["loc"][-1])
    return _say(invalid(name, "invalid_value", f"{name}: {problem['msg']}"))


async def _bug(_: Request, __: Exception) -> Response:
    # the server beneath logs it
    return _say(ApiError(500, "internal_error", "something is wrong in the gateway", kind="server_error"))
