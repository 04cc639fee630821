"""OpenAI's clients, which ask for the receipt of every answer and hold it beside what was asked.

All routes to a completion meet in the SDK's own ``request``: there the header is added, the types are replaced by those
with a receipt, and what is sent is kept, so that ``create``, raw responses and retries all behave as without us.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Self

import openai
from openai import AsyncOpenAI, OpenAI
from openai._models import FinalRequestOptions  # what `request` takes; it has no public name

from targon.client.answers import (
    AsyncChatStream,
    AsyncTextStream,
    ChatAnswer,
    ChatStream,
    TextAnswer,
    TextStream,
    Verifiable,
)
from targon.client.asked import Form
from targon.client.errors import NotVerified, Words
from targon.client.exchange import Exchange, Ledger
from targon.client.receipts import AnswerReceipt, Expected
from targon.client.resources import (
    AsyncChat,
    AsyncTextCompletions,
    Chat,
    Option,
    TextCompletions,
)
from targon.protocol import Digest, ProtocolError, ReceiptMismatch, ReceiptStatement, filed

DEFAULT_BASE_URL: Final = "http://127.0.0.1:8888/v1"
"""A gateway on this machine."""
_FULL: Final = {"Targon-Receipt": "full"}
_FORMS: Final[Mapping[str, Form]] = {"/chat/completions": "chat", "/completions": "text"}
_ANSWERS: Final[Mapping[Form, type[ChatAnswer | TextAnswer]]] = {"chat": ChatAnswer, "text": TextAnswer}


class Client(OpenAI):
    """``openai.OpenAI`` whose answers can be verified."""

    def __init__(
        self,
        *,
        api_key: Option = None,
        base_url: Option = None,
        expect: Expected | None = None,
        **options: Option,
    ) -> None:
        """Construct a client.

        Args:
            api_key: by default what the environment has as TARGON_API_KEY.
            base_url: the gateway's, with ``/v1``; by default what the environment has as TARGON_BASE_URL, or
                :data:`DEFAULT_BASE_URL`.
            expect: who must have answered, whatever ``verify()`` says besides.
            options: those of ``openai.OpenAI``.

        Raises:
            openai.OpenAIError: if there is no key.
        """
        super().__init__(api_key=_key(api_key), base_url=_url(base_url), **options)
        _forget_openai(self, options)
        self.expect = expect or Expected()
        self._ledger = Ledger()

    @property
    def chat(self) -> Chat:
        return Chat(self)

    @property
    def completions(self) -> TextCompletions:
        return TextCompletions(self)

    def receipt(self, of: AnswerReceipt | str) -> ReceiptStatement:
        """Ask the gateway what the verifier has on file of a receipt, and check it: both signatures, and that it is
        the same receipt. With the verdict, where the answer was audited and judged.

        Args:
            of: a receipt of an answer, or a receipt's id.

        Raises:
            NotVerified: if what came isn't the verifier's statement about this receipt.
            openai.APIError: if nothing came: :class:`openai.NotFoundError` where there is no such receipt.
        """
        text = self.get(f"/receipts/{_id(of)}", cast_to=str)
        return _checked(text, of, self.expect)

    def request(
        self,
        cast_to: type[Any],
        options: FinalRequestOptions,
        *,
        stream: bool = False,
        stream_cls: type[Any] | None = None,
    ) -> Option:
        form = _form(options)
        if form is not None:
            exchange = Exchange(form, _body(options), self.expect, self._ledger)
            options = _with_receipt(options, exchange)
            cast_to = _ANSWERS[form]
            stream_cls = ChatStream if form == "chat" else TextStream
        return super().request(cast_to, options, stream=stream, stream_cls=stream_cls)

    def copy(self, *, _extra_kwargs: Mapping[str, Any] = {}, **options: Option) -> Self:
        return super().copy(_extra_kwargs={"expect": self.expect, **_extra_kwargs}, **options)

    with_options = copy


class AsyncClient(AsyncOpenAI):
    """``openai.AsyncOpenAI`` whose answers can be verified."""

    def __init__(
        self,
        *,
        api_key: Option = None,
        base_url: Option = None,
        expect: Expected | None = None,
        **options: Option,
    ) -> None:
        """As :class:`Client`, with the options of ``openai.AsyncOpenAI``."""
        super().__init__(api_key=_key(api_key), base_url=_url(base_url), **options)
        _forget_openai(self, options)
        self.expect = expect or Expected()
        self._ledger = Ledger()

    @property
    def chat(self) -> AsyncChat:
        return AsyncChat(self)

    @property
    def completions(self) -> AsyncTextCompletions:
        return AsyncTextCompletions(self)

    async def receipt(self, of: AnswerReceipt | str) -> ReceiptStatement:
        """As :meth:`Client.receipt`."""
        text = await self.get(f"/receipts/{_id(of)}", cast_to=str)
        return _checked(text, of, self.expect)

    async def request(
        self,
        cast_to: type[Any],
        options: FinalRequestOptions,
        *,
        stream: bool = False,
        stream_cls: type[Any] | None = None,
    ) -> Option:
        form = _form(options)
        if form is not None:
            exchange = Exchange(form, _body(options), self.expect, self._ledger)
            options = _with_receipt(options, exchange)
            cast_to = _ANSWERS[form]
            stream_cls = AsyncChatStream if form == "chat" else AsyncTextStream
        return await super().request(cast_to, options, stream=stream, stream_cls=stream_cls)

    def copy(self, *, _extra_kwargs: Mapping[str, Any] = {}, **options: Option) -> Self:
        return super().copy(_extra_kwargs={"expect": self.expect, **_extra_kwargs}, **options)

    with_options = copy


def _key(given: Option) -> Option:
    """The caller's key; never OPENAI_API_KEY, which is nothing that a gateway should see."""
    key = os.environ.get("TARGON_API_KEY") if given is None else given
    if not key:
        raise openai.OpenAIError(
            "no API key: got neither api_key nor TARGON_API_KEY, expected a key of the gateway; whoever runs it makes "
            "one with: targon key create"
        )
    return key


def _url(given: Option) -> Option:
    return given if given is not None else os.environ.get("TARGON_BASE_URL") or DEFAULT_BASE_URL


def _forget_openai(client: OpenAI | AsyncOpenAI, options: Mapping[str, Any]) -> None:
    """Take out what the SDK found in the environment of OpenAI's own service: it is no gateway's business."""
    for name in ("organization", "project", "admin_api_key", "webhook_secret"):
        if options.get(name) is None and hasattr(client, name):
            setattr(client, name, None)


def _form(options: FinalRequestOptions) -> Form | None:
    return _FORMS.get(options.url) if options.method.lower() == "post" else None


def _body(options: FinalRequestOptions) -> dict[str, Any]:
    """The JSON object that will be sent: what the SDK made of the arguments, and ``extra_body``."""
    given: Any = options.json_data or {}
    return {**given, **(options.extra_json or {})}


def _with_receipt(options: FinalRequestOptions, exchange: Exchange) -> FinalRequestOptions:
    """The same, asking for the receipt, and noting what comes."""
    theirs = options.post_parser

    def note(answer: Option) -> Option:
        if isinstance(answer, Verifiable):
            answer._exchange = exchange  # noqa: SLF001 - nobody else can attach it
            if isinstance(answer, ChatAnswer | TextAnswer):
                exchange.take(answer)
        return theirs(answer) if callable(theirs) else answer

    headers = options.headers if isinstance(options.headers, Mapping) else {}
    return options.model_copy(update={"headers": {**_FULL, **headers}, "post_parser": note})


def _id(of: AnswerReceipt | str) -> str:
    return of.id if isinstance(of, AnswerReceipt) else of


def _checked(text: str, of: AnswerReceipt | str, expect: Expected) -> ReceiptStatement:
    advice = "don't rely on it; keep it to show it to others, and ask the gateway's operator"
    try:
        statement = ReceiptStatement.from_bytes(text)
        filed.check(statement, receipt_id=Digest(_id(of)))
    except ReceiptMismatch as error:
        raise NotVerified(f"{error.of}'s {error.field}", error.got, error.expected, advice=advice) from error
    except ProtocolError as error:
        expected = Words("the verifier's statement about the receipt")
        raise NotVerified("statement", Words(str(error)), expected, advice=advice) from error
    if isinstance(of, AnswerReceipt) and statement.receipt != of.signed:
        raise NotVerified(
            "receipt on file", Words("another than the answer's"), Words("the same"), advice=advice
        )
    expect.check(statement.receipt.body)
    return statement
