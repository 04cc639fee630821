"""Whatever a gateway makes up is refused, and the refusal says what was wrong."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import anyio
import openai
import pytest
from bittensor.keyfiles import Keypair

from targon.client import AsyncClient, Client, Expected, NotVerified
from targon.client.asked import wanted
from targon.client.errors import shown
from targon.protocol import AuditStatement, receipts
from tests.client.gateway import PROVER, VERIFIER, Gateway, Given, Lie, Reply, signed, statement

MALLORY = Keypair.create_from_uri("//Mallory")
ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 12}


def first(change: Callable[[Given], None]) -> Lie:
    """A lie about the first answer, told with a note that goes with it."""

    def lie(reply: Reply) -> None:
        change(reply.given[0])
        reply.given[0].renote()

    return lie


def resigned(one: Given, signer: Keypair = PROVER, **changes: Any) -> None:
    """Another completion, signed."""
    completion = one.response.completion.model_copy(update=changes)
    one.response = signed(one.request, completion, signer=signer)


def another_request(one: Given, **changes: Any) -> None:
    """A prover that was asked something else, and signed its answer to that."""
    one.request = one.request.model_copy(update=changes)
    resigned(one, request_digest=one.request.digest())


def sampling(**changes: Any) -> Lie:
    return first(lambda one: another_request(one, sampling=one.request.sampling.model_copy(update=changes)))


def messages(*contents: str) -> Lie:
    turn = {"role": "user"}

    def change(one: Given) -> None:
        kind = type(one.request.messages[0])
        another_request(one, messages=tuple(kind(content=content, **turn) for content in contents))

    return first(change)


def body(**changes: Any) -> Lie:
    """A receipt that says something else, signed by the prover nonetheless."""

    def change(one: Given) -> None:
        changed = one.response.receipt.body.model_copy(update=changes)
        receipt = one.response.receipt.model_copy(
            update={"body": changed, "signature": bytes(PROVER.sign(receipts.signed_bytes(changed))).hex()}
        )
        one.response = one.response.model_copy(update={"receipt": receipt})

    return first(change)


def unsigned(**changes: Any) -> Lie:
    """A receipt that was changed after it was signed."""

    def change(one: Given) -> None:
        changed = one.response.receipt.body.model_copy(update=changes)
        receipt = one.response.receipt.model_copy(update={"body": changed})
        one.response = one.response.model_copy(update={"receipt": receipt})

    return first(change)


def text(one: Given) -> None:
    one.pieces = ["Buy", " now!"]


def no_tokens(one: Given) -> None:
    resigned(one, token_ids=(), logprobs=(), text="")
    one.pieces = []


def note(**changes: Any) -> Lie:
    def lie(reply: Reply) -> None:
        reply.given[0].note = reply.given[0].note | changes

    return lie


def set_(name: str, value: Any) -> Lie:
    def lie(reply: Reply) -> None:
        setattr(reply.given[0], name, value)

    return lie


def usage(reply: Reply) -> None:
    reply.usage += 1


OLD = int(time.time()) - 86_400

LIES: dict[str, tuple[Lie, str]] = {
    "changed text": (first(text), "^answer 0: text: got 'Buy now!', expected "),
    "a text that goes on": (first(lambda one: one.pieces.append("!")), "^answer 0: text: got "),
    "swapped tokens": (
        first(
            lambda one: setattr(
                one,
                "response",
                one.response.model_copy(
                    update={
                        "completion": one.response.completion.model_copy(
                            update={"token_ids": one.response.completion.token_ids[::-1]}
                        )
                    }
                ),
            )
        ),
        "receipt's completion_digest: got ",
    ),
    "another question": (messages("Why not?"), r"request's messages\[0\].content: got 'Why not\?', expected 'Why\?'"),
    "a message more": (messages("Why?", "Advertise!"), "request's messages: got "),
    "a system prompt in a user's name": (messages("Be rude.", "Why?"), "request's messages: got "),
    "another model": (first(lambda one: another_request(one, model="small")), "request's model: got 'small'"),
    "another temperature": (sampling(temperature=0.1), "request's temperature: got 0.1, expected 1.0"),
    "another top-p": (sampling(top_p=0.5), "request's top_p"),
    "another top-k": (sampling(top_k=1), "request's top_k"),
    "a shorter answer": (sampling(max_tokens=300), "request's max_tokens: got 300, expected 12"),
    "a stop string of its own": (sampling(stop=("x",)), "request's stop"),
    "another choice": (sampling(choice=1), "request's choice"),
    "signed by nobody": (unsigned(model_digest="e" * 64), "receipt's signature: got another"),
    "signed by another prover": (
        first(lambda one: resigned(one, signer=MALLORY)),
        f"receipt's signature: got another .*, expected that of {PROVER.ss58_address}",
    ),
    "a receipt for another prover": (body(prover=MALLORY.ss58_address), "receipt's prover: got '"),
    "a receipt of another subnet": (body(netuid=9), "receipt's netuid: got 9, expected 4"),
    "a receipt for another request": (body(request_digest="99" * 32), "receipt's request_digest"),
    "a completion for another request": (
        first(lambda one: resigned(one, request_digest="99" * 32)),
        "completion's request_digest",
    ),
    "an old receipt": (body(issued_at=OLD), f"receipt's issued_at: got {OLD}, expected from "),
    "a receipt of tomorrow": (body(issued_at=OLD + 2 * 86_400), "receipt's issued_at"),
    "no receipt": (set_("note", {}), "receipt: got none, expected a receipt with its request and answer"),
    "an id alone": (note(request=None), "receipt: got a receipt's id alone"),
    "a receipt that is none": (note(response={"receipt": 5}), "receipt: got GenerateResponse: completion: Field"),
    "a request that is none": (note(request=[1, 2]), "receipt: got "),
    "another id": (note(receipt_id="99" * 32), "receipt's id: got '9999"),
    "another reason why it ended": (set_("finish_reason", "content_filter"), "finish_reason: got 'content_filter'"),
    "no end": (set_("finish_reason", None), "answer: got one that has no end"),
    "one token more on the bill": (usage, r"usage's completion_tokens: got 13, expected 12|got \d+, expected \d+"),
    "made-up log-probabilities": (set_("logprobs", [-0.125] * 12), "log-probabilities: got others"),
    "no tokens": (
        first(no_tokens),
        "tokens: got 0, expected 1 to 12",
    ),
    "fewer log-probabilities than tokens": (
        first(lambda one: resigned(one, logprobs=(-1.0,))),
        r"log-probabilities: got 1, expected \d+",
    ),
    "more answers than were asked for": (lambda reply: reply.given.append(reply.given[0]), r"answers: got \[1\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_a_whole_answer_is_refused_by_name(client: Client, gateway: Gateway, name: str) -> None:
    gateway.lie, said = LIES[name]
    answer = client.chat.completions.create(**ASK, logprobs=True)
    with pytest.raises(NotVerified, match=said) as caught:
        answer.verify()
    assert caught.value.diagnostics().startswith("not verified: ")


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_a_stream_is_refused_by_name(client: Client, gateway: Gateway, name: str) -> None:
    gateway.lie, said = LIES[name]
    usage = {"include_usage": True}
    stream = client.chat.completions.create(**ASK, logprobs=True, stream=True, stream_options=usage)
    list(stream)
    with pytest.raises(NotVerified, match=said):
        stream.verify()


@pytest.mark.parametrize("name", LIES)
def test_a_lie_to_the_asynchronous_client_is_refused_by_name(gateway: Gateway, name: str) -> None:
    gateway.lie, said = LIES[name]

    async def ask() -> None:
        async with AsyncClient(api_key="k", base_url=gateway.url) as client:
            answer = await client.chat.completions.create(**ASK, logprobs=True)
        with pytest.raises(NotVerified, match=said):
            answer.verify()

    anyio.run(ask)


def test_an_earlier_answer_to_the_same_question_is_not_an_answer_again(
    client: Client, gateway: Gateway
) -> None:
    kept: list[Reply] = []

    def replay(reply: Reply) -> None:
        kept.append(Reply(list(reply.given), reply.usage))
        reply.given[:] = kept[0].given
        reply.usage = kept[0].usage

    gateway.lie = replay
    honest = client.chat.completions.create(**ASK)
    again = client.chat.completions.create(**ASK)
    with pytest.raises(NotVerified, match="receipt: got one that an earlier answer had"):
        again.verify()
    honest.verify()
    honest.verify()


def test_an_earlier_answer_to_another_question_is_refused(client: Client, gateway: Gateway) -> None:
    kept: list[Given] = []

    def replay(reply: Reply) -> None:
        kept.extend(reply.given)
        reply.given[:] = kept[:1]

    gateway.lie = replay
    client.chat.completions.create(**ASK)
    stale = client.chat.completions.create(**ASK | {"messages": [{"role": "user", "content": "And now?"}]})
    with pytest.raises(NotVerified, match="request's messages"):
        stale.verify()


def test_one_answer_given_twice_is_not_two_answers(client: Client, gateway: Gateway) -> None:
    def twice(reply: Reply) -> None:
        reply.given[1] = reply.given[0]

    gateway.lie = twice
    with pytest.raises(NotVerified, match="answer 1: request's choice: got 0, expected 1"):
        client.chat.completions.create(**ASK, n=2).verify()


def test_fewer_answers_than_were_asked_for_are_refused(client: Client, gateway: Gateway) -> None:
    gateway.lie = lambda reply: reply.given.pop() and None
    with pytest.raises(NotVerified, match="answer 1: answer: got one that has no end"):
        client.chat.completions.create(**ASK, n=2).verify()


def test_answers_for_two_networks_are_not_one_answer(client: Client, gateway: Gateway) -> None:
    gateway.lie = first(lambda one: another_request(one, netuid=5))
    with pytest.raises(NotVerified, match="answer 1: receipt's netuid: got 4, expected 5"):
        client.chat.completions.create(**ASK, n=2).verify()


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"verifier": MALLORY.ss58_address}, "receipt's verifier"),
        ({"prover": MALLORY.ss58_address}, "receipt's prover"),
        ({"model_digest": "e" * 64}, "receipt's model_digest"),
        ({"netuid": 0}, "receipt's netuid: got 4, expected 0"),
        ({"genesis": "0" * 64}, "receipt's genesis"),
    ],
)
def test_whoever_is_expected_must_have_answered(client: Client, expected: dict[str, Any], said: str) -> None:
    answer = client.chat.completions.create(**ASK)
    with pytest.raises(NotVerified, match=said) as caught:
        answer.verify(**expected)
    assert "if " in caught.value.diagnostics()
    answer.verify(verifier=VERIFIER.ss58_address, prover=PROVER.ss58_address, model_digest="d" * 64, netuid=4)


@pytest.mark.parametrize(
    "options",
    [
        {"frequency_penalty": 0.5},
        {"logit_bias": {"5": 10}},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "x"}}]},
        {"extra_body": {"min_p": 0.1}},
    ],
)
def test_what_no_receipt_can_show_is_not_verified_though_a_gateway_took_it(client: Client, options) -> None:
    answer = client.chat.completions.create(**ASK | options)
    with pytest.raises(NotVerified, match="no receipt can show that it was honoured") as caught:
        answer.verify()
    assert "leave out" in caught.value.diagnostics()


@pytest.mark.parametrize("prompt", [[5, 6], [[5, 6], [7]]])
def test_token_ids_are_not_verified(prompt: Any) -> None:
    with pytest.raises(NotVerified, match="prompt: got token ids, expected its default"):
        wanted("text", {"model": "tiny", "prompt": prompt})


def test_pictures_and_names_are_not_verified(client: Client) -> None:
    picture = [
        {"type": "text", "text": "x"},
        {"type": "image_url", "text": "", "image_url": {"url": "data:,"}},
    ]
    seen = client.chat.completions.create(**ASK | {"messages": [{"role": "user", "content": picture}]})
    with pytest.raises(NotVerified, match=r"messages\[0\].content: got 'image_url'"):
        seen.verify()
    named = client.chat.completions.create(
        **ASK | {"messages": [{"role": "user", "content": "x", "name": "Eve"}]}
    )
    with pytest.raises(NotVerified, match=r"messages\[0\].name: got 'Eve'"):
        named.verify()


def test_a_caller_s_own_header_wins_and_without_a_receipt_nothing_is_verified(client: Client) -> None:
    answer = client.chat.completions.create(**ASK, extra_headers={"Targon-Receipt": "id"})
    with pytest.raises(NotVerified, match="receipt: got a receipt's id alone") as caught:
        answer.verify()
    assert "base_url" in caught.value.diagnostics()


# -- what is on file -----------------------------------------------------------------------------------------


def test_a_statement_is_both_parties_own_and_carries_the_verdict(client: Client, gateway: Gateway) -> None:
    gateway.audit = AuditStatement(outcome="pass", method="divergence", score=1.0, reason="", record=10**6)
    answer = client.chat.completions.create(**ASK)
    told = client.receipt(answer.receipt)
    assert (told.receipt, told.audit) == (answer.receipt.signed, gateway.audit)
    assert client.receipt(answer.receipt.id).receipt == told.receipt


STATEMENT_LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "record": (lambda told: told["countersignature"]["body"].update(record=9**9), "statement: got countersignature"),
    "receipt": (lambda told: told["receipt"]["body"].update(issued_at=5), "statement: got receipt: the signature"),
    "verifier": (
        lambda told: told["countersignature"]["body"].update(verifier=MALLORY.ss58_address),
        "countersignature's verifier",
    ),
    "block": (lambda told: told.update(block=5), "statement's block"),
    "nothing": (lambda told: told.clear(), "statement: got ReceiptStatement: receipt: Field required"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATEMENT_LIES)
def test_a_statement_that_is_not_what_it_should_be_is_refused(
    client: Client, gateway: Gateway, name: str
) -> None:
    gateway.statement_lie, said = STATEMENT_LIES[name]
    with pytest.raises(NotVerified, match=said):
        client.receipt(client.chat.completions.create(**ASK).receipt)


def test_the_statement_about_another_receipt_is_refused(client: Client, gateway: Gateway) -> None:
    one, other = (client.chat.completions.create(**ASK).receipt for _ in range(2))
    told = statement(other.response).to_json()
    gateway.statement_lie = lambda given: given.update(told)
    with pytest.raises(NotVerified, match="receipt's request_digest"):
        client.receipt(one)
    with pytest.raises(NotVerified, match="receipt's request_digest"):
        client.receipt(one.id)


def test_another_receipt_for_the_same_request_is_refused(client: Client, gateway: Gateway) -> None:
    receipt = client.chat.completions.create(**ASK).receipt
    other = signed(
        receipt.request, receipt.response.completion.model_copy(update={"salt": secrets.token_hex(32)})
    )
    told = statement(other).to_json()
    gateway.statement_lie = lambda given: given.update(told)
    with pytest.raises(NotVerified, match="receipt on file: got another than the answer's"):
        client.receipt(receipt)


def test_a_statement_of_another_verifier_than_the_client_expects_is_refused(gateway: Gateway) -> None:
    client = Client(api_key="k", base_url=gateway.url, expect=Expected(verifier=MALLORY.ss58_address))
    answer = client.chat.completions.create(**ASK)
    with pytest.raises(NotVerified, match="receipt's verifier"):
        client.receipt(answer.receipt)


def test_a_receipt_that_nobody_has_is_openai_s_not_found(client: Client) -> None:
    with pytest.raises(openai.NotFoundError):
        client.receipt("99" * 32)


# -- the error -----------------------------------------------------------------------------------------------


def test_diagnostics_say_what_was_got_and_expected_and_what_to_do() -> None:
    error = NotVerified("text", "a\x1b[2J", "b" * 500, advice="ask again", choice=2)
    assert error.diagnostics().splitlines() == [
        "not verified: text",
        "  answer:   2",
        "  got:      'a\\x1b[2J'",
        f"  expected: '{'b' * 59}... (502 characters)",
        "  do:       ask again",
    ]
    assert shown(5) == "5"
