"""What is logged at which level, and what never is."""

from __future__ import annotations

import json
import logging

import anyio
import pytest
import structlog
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from targon.cli.logging import configure_logging

SIGNATURE = "a1" * 64
LIBRARY = logging.getLogger("some.library")


@pytest.fixture
def ours() -> structlog.typing.FilteringBoundLogger:
    return structlog.get_logger("targon.test")


def test_people_see_what_happens_and_no_more(capsys, ours):
    configure_logging()
    ours.info("served")
    ours.debug("step")
    LIBRARY.warning("trouble")
    LIBRARY.info("chatter")
    err = capsys.readouterr().err
    assert "served" in err
    assert "trouble" in err
    assert "step" not in err
    assert "chatter" not in err


def test_debug_adds_our_steps_and_no_library_s(capsys, ours):
    configure_logging(debug=True)
    ours.debug("step")
    LIBRARY.debug("chatter")
    err = capsys.readouterr().err
    assert "step" in err
    assert "chatter" not in err


def test_trace_adds_the_libraries_in_the_same_form(capsys, ours):
    configure_logging(trace=True, json_lines=True)
    ours.debug("step")
    LIBRARY.debug("chatter about %s", "something")
    step, chatter = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (step["event"], step["level"]) == ("step", "debug")
    assert (chatter["event"], chatter["level"]) == ("chatter about something", "debug")
    assert chatter["logger"] == "some.library"


def test_a_process_says_its_name_in_every_line(capsys, ours):
    configure_logging(trace=True, json_lines=True, neuron="prover-7")
    ours.info("served")
    LIBRARY.debug("chatter")
    assert [json.loads(line)["neuron"] for line in capsys.readouterr().err.splitlines()] == ["prover-7"] * 2


def test_logging_that_is_set_up_again_says_everything_once(capsys):
    configure_logging()
    configure_logging()
    LIBRARY.warning("trouble")
    assert capsys.readouterr().err.count("trouble") == 1


@pytest.mark.parametrize(
    "text",
    [
        "headers {'Authorization': 'Bearer HIDDEN', 'Host': 'x'}",
        "Authorization: Bearer HIDDEN",
        'send {"password": "HIDDEN words", "user": "me"}',
        "config show verifier --database.password HIDDEN --axon_off",
        "X-Bittensor-Signature: HIDDEN",
        "btauth-signature=HIDDEN&x=1",
        "redis://:HIDDEN@127.0.0.1:6379/1",
        "https://me:HIDDEN@example.com/path",
        "api_key=HIDDEN",
        "mnemonic: 'HIDDEN HIDDEN HIDDEN'",
    ],
)
def test_secrets_are_taken_out_of_what_libraries_say(capsys, text):
    configure_logging(trace=True)
    LIBRARY.debug(text)
    err = capsys.readouterr().err
    assert "(not logged)" in err
    assert "HIDDEN" not in err


def test_signatures_and_bodies_are_taken_out_of_every_line(capsys, ours):
    configure_logging(trace=True, json_lines=True)
    LIBRARY.debug("frame %s", SIGNATURE)
    LIBRARY.debug("body %s", "words " * 1000)
    ours.debug("request", body=b"words", api_key="k", signature=SIGNATURE, note=f"0x{SIGNATURE}")
    frame, body, request = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert frame["event"] == "frame (not logged)"
    assert len(body["event"]) < 2100
    assert request["body"] == "(5 bytes, not logged)"
    assert request["api_key"] == request["signature"] == request["note"] == "(not logged)"


def test_a_gateway_s_api_key_is_taken_out_wherever_it_stands(capsys, ours):
    configure_logging(json_lines=True)
    key = "tg-" + "aB3_-" * 8 + "xyz"
    ours.info("refused", error=f"no model {key!r} here")
    assert json.loads(capsys.readouterr().err)["error"] == "no model '(not logged)' here"


def test_digests_are_logged_as_they_are(capsys, ours):
    configure_logging()
    ours.info("verdict", digest="ab" * 32)
    assert "ab" * 32 in capsys.readouterr().err


def test_a_failure_is_logged_without_the_secret_that_it_names(capsys, ours):
    configure_logging()
    try:
        raise ValueError("refused: password=HIDDEN")
    except ValueError:
        ours.exception("failed")
    err = capsys.readouterr().err
    assert "ValueError" in err
    assert "HIDDEN" not in err


@pytest.mark.anyio
async def test_a_library_that_logs_whole_messages_stays_quiet(capsys):
    configure_logging(trace=True)

    async def echo(websocket) -> None:
        await websocket.send(await websocket.recv())

    with anyio.fail_after(60):
        async with serve(echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}", proxy=None) as client:
                await client.send("a signed extrinsic")
                assert await client.recv() == "a signed extrinsic"
    assert "signed extrinsic" not in capsys.readouterr().err
