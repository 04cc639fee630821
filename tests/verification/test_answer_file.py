"""Answers on file are parsed, not trusted; and what anyone can check of them offline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from bittensor.keyfiles import Keypair
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from targon.engines import Replayed, ReplayTask
from targon.verification import (
    AnswerFileError,
    Calibration,
    SignedAnswer,
    answer_file,
    check_answer,
    check_unaided,
    evidence_of,
    read_answers,
    save_answer,
)
from targon.verification.answer_file import MAX_LINE_BYTES
from targon.verification.verdict import failed
from tests.tiny_engine import TinyEngine
from tests.verification.answers import PROVER, honestly, signed, tiny_request, whole_answer
from tests.verification.completions import band_with

pytestmark = pytest.mark.anyio

CALIBRATION = Calibration(model_digest="d" * 64, engine="tiny", dtype="float32", bands=(band_with(),))


async def answer(number: int = 0, *, wrong: bool = False, prover: Keypair = PROVER) -> SignedAnswer:
    request = tiny_request(number, prover=prover)
    return SignedAnswer(request=request, response=await honestly(request, wrong=wrong, prover=prover))


async def wrong_answer() -> SignedAnswer:
    request, response = await whole_answer(wrong=True)
    return SignedAnswer(request=request, response=response)


# -- the file -----------------------------------------------------------------------------------------------


async def test_answers_come_back_as_they_were_saved_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    saved = [await answer(number) for number in range(3)]
    for one in saved:
        save_answer(path, one.request, one.response)
    assert list(read_answers(path)) == saved


async def test_what_a_verifier_said_is_kept_beside_its_answer(tmp_path: Path) -> None:
    one = await answer()
    save_answer(tmp_path / "file", one.request, one.response, failed("exact", "x" * 5000, 0.5))
    (back,) = read_answers(tmp_path / "file")
    assert back.verdict is not None
    assert (back.verdict.outcome, back.verdict.score, len(back.verdict.reason)) == ("fail", 0.5, 2000)


async def test_a_last_line_needs_no_end(tmp_path: Path) -> None:
    one = await answer()
    (tmp_path / "file").write_bytes(one.to_bytes())
    assert list(read_answers(tmp_path / "file")) == [one]


async def test_json_that_is_not_canonical_is_refused(tmp_path: Path) -> None:
    whole = (await answer()).to_bytes()
    twice = whole.replace(b'"netuid":4,', b'"netuid":5,"netuid":4,', 1)
    spaced = json.dumps(json.loads(whole)).encode()
    unset = whole.replace(b',"verdict":null', b"")
    for line in (twice, spaced, unset, b" " + whole):
        (tmp_path / "file").write_bytes(line + b"\n")
        with pytest.raises(AnswerFileError, match=r"line 1: got JSON that is not in its canonical form"):
            list(read_answers(tmp_path / "file"))


async def test_a_line_that_is_no_answer_is_named(tmp_path: Path) -> None:
    one = (await answer()).to_bytes()
    (tmp_path / "file").write_bytes(one + b"\n{}\n")
    with pytest.raises(AnswerFileError, match=r"line 2: not a signed answer: .*request: Field required"):
        list(read_answers(tmp_path / "file"))


def test_a_file_that_is_missing_or_empty_or_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path, said in (
        (tmp_path / "none", "could not be read"),
        (tmp_path, "could not be read"),
        (tmp_path / "empty", "got an empty file"),
    ):
        with pytest.raises(AnswerFileError, match=said):
            list(read_answers(path))


def test_a_line_without_an_end_is_not_read_into_memory_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(MAX_LINE_BYTES + 2)  # sparse: nothing but zeros, on no disk
    with pytest.raises(AnswerFileError, match="at most 64 MiB in a line"):
        list(read_answers(path))


async def test_a_file_has_only_so_many_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_file, "MAX_ANSWERS", 2)
    for number in range(3):
        one = await answer(number)
        save_answer(tmp_path / "file", one.request, one.response)
    with pytest.raises(AnswerFileError, match=r"line 3: expected at most 2 answers"):
        list(read_answers(tmp_path / "file"))


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_crash_the_reader(tmp_path: Path, data) -> None:
    whole = bytearray(anyio.run(answer).to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    (tmp_path / "file").write_bytes(bytes(whole))
    try:
        found = list(read_answers(tmp_path / "file"))
    except AnswerFileError:
        return
    assert b"\n".join(one.to_bytes() for one in found) == bytes(whole).removesuffix(b"\n")


# -- the check ----------------------------------------------------------------------------------------------


async def test_an_honest_answer_passes_without_a_calibration(tmp_path: Path) -> None:
    checked = await check_answer(await answer(), TinyEngine())
    assert (checked.verdict.outcome, checked.replayed, checked.disagreements) == ("pass", True, ())


async def test_mismatches_without_a_calibration_are_no_finding() -> None:
    checked = await check_answer(await wrong_answer(), TinyEngine())
    assert checked.verdict.outcome == "inconclusive"
    assert "no calibration says how far honest engines differ here" in checked.verdict.reason


async def test_mismatches_beyond_what_a_calibration_allows_fail_and_are_put_in_words() -> None:
    checked = await check_answer(await wrong_answer(), TinyEngine(), CALIBRATION)
    assert checked.verdict.outcome == "fail"
    assert len(checked.disagreements) == len(checked.verdict.evidence["disagreed"]) > 0
    at = checked.disagreements[0]
    assert at.claimed_text == (chr(ord("a") - 1 + at.claimed) if at.claimed else "the end")


async def test_what_no_band_covers_is_no_finding() -> None:
    narrow = band_with().scope.model_copy(update={"max_tokens": 3})
    calibration = CALIBRATION.model_copy(
        update={"bands": (band_with().model_copy(update={"scope": narrow}),)}
    )
    checked = await check_answer(await wrong_answer(), TinyEngine(), calibration)
    assert checked.verdict.outcome == "inconclusive"
    assert "outside of what was calibrated: max_tokens 12" in checked.verdict.reason


async def test_a_receipt_that_names_another_model_than_the_engine_runs_is_no_finding() -> None:
    one = await wrong_answer()
    other = signed(one.request, one.response.completion, model_digest="e" * 64)
    checked = await check_answer(SignedAnswer(request=one.request, response=other), TinyEngine(), CALIBRATION)
    assert checked.verdict.outcome == "inconclusive"
    assert "got model digest dddd" in checked.verdict.reason


async def test_another_model_s_tokenizer_is_not_asked() -> None:
    class Other(TinyEngine):
        async def text(self, token_ids: Sequence[int], stop: Sequence[str]) -> str:
            return "what another tokenizer says"

    one = await answer()
    other = signed(one.request, one.response.completion, model_digest="e" * 64)
    checked = await check_answer(SignedAnswer(request=one.request, response=other), Other())
    assert checked.verdict.outcome == "inconclusive"
    assert "another model than the receipt names" in checked.verdict.reason


async def test_an_engine_that_is_down_is_no_finding() -> None:
    checked = await check_answer(await answer(), TinyEngine(down=True), CALIBRATION)
    assert checked.verdict.outcome == "inconclusive"
    assert "the tiny engine is down" in checked.verdict.reason


async def test_an_engine_that_is_slow_is_no_finding() -> None:
    class Slow(TinyEngine):
        async def replay(self, tasks: Sequence[ReplayTask]) -> list[Replayed]:
            await anyio.sleep(60.0)
            return await super().replay(tasks)

    checked = await check_answer(await answer(), Slow(), CALIBRATION, deadline_s=0.01)
    assert checked.verdict.outcome == "inconclusive"
    assert "no answer within 0.01 s" in checked.verdict.reason


async def test_a_wrong_form_fails_whatever_model_the_engine_runs() -> None:
    one = await answer()
    short = one.response.completion.model_copy(update={"token_ids": ()})
    wrong = signed(one.request, short, model_digest="e" * 64)
    checked = await check_answer(SignedAnswer(request=one.request, response=wrong), TinyEngine())
    assert (checked.verdict.outcome, checked.verdict.method) == ("fail", "structure")


async def test_native_work_is_rechecked_and_not_replayed() -> None:
    one = await answer()
    request = tiny_request(dialect="native")
    completion = one.response.completion.model_copy(update={"request_digest": request.digest()})
    native = SignedAnswer(request=request, response=signed(request, completion))
    checked = await check_answer(native, TinyEngine(), CALIBRATION)
    assert (checked.verdict.outcome, checked.verdict.method) == ("inconclusive", "recheck")
    assert "no log-probabilities" in checked.verdict.reason
    assert not checked.replayed


async def test_without_an_engine_a_right_form_is_no_pass_and_a_wrong_one_fails() -> None:
    one = await answer()
    assert check_unaided(one).verdict.outcome == "inconclusive"
    mallory = Keypair.create_from_uri("//Mallory")
    forged = signed(one.request, one.response.completion, prover=mallory)
    checked = check_unaided(SignedAnswer(request=one.request, response=forged))
    assert checked.verdict.outcome == "fail"
    assert "receipt refused" in checked.verdict.reason


async def test_the_evidence_of_many_wrong_answers_convicts_and_of_honest_ones_does_not() -> None:
    wrong = [
        await check_answer(await answer(number, wrong=True), TinyEngine(), CALIBRATION) for number in range(8)
    ]
    right = [await check_answer(await answer(number), TinyEngine(), CALIBRATION) for number in range(8)]
    assert evidence_of(wrong)[wrong[0].answer.request.prover].convicted
    state = evidence_of(right)[right[0].answer.request.prover]
    assert (state.convicted, state.completions) == (False, 8)


async def test_an_answer_that_is_given_twice_counts_once() -> None:
    checked = await check_answer(await wrong_answer(), TinyEngine(), CALIBRATION)
    (state,) = evidence_of([checked] * 50).values()
    assert state.completions == 1


async def test_each_prover_has_evidence_of_its_own() -> None:
    other = Keypair.create_from_uri("//Other")
    checked = [
        await check_answer(await answer(number, prover=prover), TinyEngine(), CALIBRATION)
        for number, prover in enumerate((PROVER, other, other))
    ]
    assert [state.completions for state in evidence_of(checked).values()] == [1, 2]


async def test_answers_that_no_band_covers_have_no_evidence() -> None:
    checked = await check_answer(await answer(), TinyEngine())
    assert evidence_of([checked, replace(checked, band=None)]) == {}
