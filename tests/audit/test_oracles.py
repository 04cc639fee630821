"""What an audit finds of oracles: in one log, in several together, and in what oracles reveal."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from bittensor.keyfiles import Keypair

from benchmarks.written_log import GENESIS, Life
from targon.audit.oracles import KEPT_PROOFS
from targon.cli import main
from targon.ledger import Caught, Event, InputsCommitted, OracleFaulted, ReliesOn
from targon.protocol import private_inputs
from targon.protocol.disclosures import OracleStatus
from targon.protocol.primitives import Block, Hotkey
from targon.protocol.private_inputs import Commitment, PrivateInput, contradict
from tests.audit.world import OTHER, PROVERS, VERIFIER, Published
from tests.verifier.scripted_oracle import ORACLE, STRANGER, Period, periods

ORACLES = Hotkey(ORACLE.ss58_address)
ME = Hotkey(VERIFIER.ss58_address)
THEM = Hotkey(OTHER.ss58_address)


def story(taste: str = "", count: int = 4) -> list[Period]:
    """Periods of four blocks, from block 2 on."""
    return periods(count, ME, THEM, taste=taste, places=2, genesis=GENESIS)


def committed(period: Period, ahead: int = 1) -> InputsCommitted:
    return InputsCommitted(block=Block(period.body.first - ahead), commitment=period.commitment)


def relies(*oracles: Hotkey, block: int = 2) -> ReliesOn:
    return ReliesOn(block=Block(block), inputs=oracles, why="a test has it so")


def caught(what: Caught, given: PrivateInput | None = None) -> OracleFaulted:
    return OracleFaulted(block=Block(9), oracle=ORACLES, what=what, detail="", given=given)


def given_by(period: Period, signer: Keypair = ORACLE) -> PrivateInput:
    """A true one of the verifier's first block."""
    return period.give_leaf(1, ME, Block(period.body.first), 0, signer)


def published(
    folder: Path, *events: Event, signer: Keypair = VERIFIER, afterwards: Sequence[Event] = ()
) -> Published:
    """What a verifier publishes of a life in which it wrote these down: at its beginning, and after 40 blocks."""
    folder.mkdir()
    life = Life(signer, PROVERS, per_block=2, challenges=1)
    life.begin()
    if events:
        life.add(*events)
    life.live(40)
    if afterwards:
        life.add(*afterwards)
        list(life.blocks(16))  # so that they are published
    return anyio.run(lambda: Published.of(life, folder, signer=signer))


def test_an_honest_oracles_commitments_are_exact(tmp_path: Path):
    told = [committed(period) for period in story()]
    report = published(tmp_path / "one", *told, relies(ORACLES), relies(block=18)).audit()
    assert report.exact
    assert (len(report.oracles.commitments), report.oracles.late) == (4, 0)
    assert "4 commitments of 1 oracles checked" in report.oracles.lines()[0]


def test_commitments_without_a_place_for_the_verifier_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first, second, *_ = periods(4, THEM, places=2, genesis=GENESIS)
    log = published(tmp_path / "one", committed(first), committed(second))
    assert main(["audit", str(log.folder)]) == 0
    assert "2 of them have no place for this verifier" in capsys.readouterr().out


def test_a_log_without_oracles_has_nothing_said_of_them(tmp_path: Path):
    assert published(tmp_path / "one").audit().oracles.lines() == []


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (lambda: [committed(Period(0, (ME,), genesis=GENESIS, signer=STRANGER))], "oracle_unsigned"),
        (
            lambda: [committed(story()[0]), committed(Period(1, (ME,), genesis=GENESIS, previous="77" * 32))],
            "oracle_unchained",
        ),
        (lambda: [committed(story()[1]), committed(story("Another ")[1])], "oracle_equivocated"),
        (
            lambda: [committed(story()[1]), committed(Period(7, (ME,), genesis=GENESIS, first=9))],
            "oracle_equivocated",
        ),
        (lambda: [committed(story()[0]), caught("equivocated")], "accusation"),
        (
            lambda: [
                committed(story()[0]),
                caught("misdealt", story()[0].give_leaf(1, ME, Block(2), 0, STRANGER)),
            ],
            "accusation",
        ),
        (lambda: [committed(story()[0]), caught("unchained")], "accusation"),
        (lambda: [committed(story()[0]), caught("misdealt")], "accusation"),
        (lambda: [committed(story()[0]), caught("uncommitted", given_by(story()[0]))], "accusation"),
        (lambda: [committed(story()[0]), caught("misdealt", given_by(story()[0], STRANGER))], "accusation"),
        (
            lambda: [committed(story()[3]), committed(Period(0, (ME,), genesis=GENESIS, first=30))],
            "oracle_unchained",
        ),
        (lambda: [committed(story()[0], ahead=0), relies(ORACLES)], "reliance"),
        (lambda: [committed(story()[0]), relies(ORACLES)], "reliance"),
        (lambda: [committed(story()[0]), relies(ORACLES), committed(story()[1], ahead=-1)], "reliance"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, events: Callable[[], list[Event]], kind: str):
    assert published(tmp_path / "one", *events()).kinds() == {kind}


def test_what_is_taken_of_a_period_that_was_seen_too_late_is_named(tmp_path: Path):
    told = [committed(period, ahead=0 if period.body.number == 2 else 1) for period in story()]
    report = published(tmp_path / "one", *told, relies(ORACLES), relies(block=18)).audit()
    (fault,) = report.faults.kept
    assert fault.kind == "reliance"
    assert "in blocks 10 to 13, for which no commitment had been seen before their period" in fault.got


def test_verdicts_say_whose_engines_they_rest_on(tmp_path: Path):
    borrowed = ReliesOn(block=Block(0), reference=(ORACLES,), agreeing=1, why="a test has it so")
    report = published(tmp_path / "one", borrowed).audit()
    assert set(report.faults.counts) == {"reliance"}
    assert report.faults.kept[0].expected == "from 1 of 1"


def test_of_many_contradictions_so_many_proofs_are_shown_and_all_are_counted(tmp_path: Path):
    told = [committed(period) for period in (*story(count=20), *story("Another ", count=20))]
    report = published(tmp_path / "one", *told).audit()
    assert len(report.oracles.proofs) == KEPT_PROOFS
    assert report.faults.counts["oracle_equivocated"] >= 20


def test_a_verifier_that_leaves_an_oracle_in_time_is_exact(tmp_path: Path):
    told = [
        committed(story()[0]),
        relies(ORACLES),
        relies(block=6),
        committed(story()[1], ahead=0),
        committed(story()[2]),
        relies(ORACLES, block=10),
        relies(block=14),
        caught("misdealt", story()[0].give_leaf(1, ME, Block(2), 0)),
    ]
    assert published(tmp_path / "one", *told).audit().exact


@pytest.mark.parametrize(("seen", "kinds"), [(10, {"history"}), (39, set())])
def test_a_commitment_that_is_dated_back_is_named(tmp_path: Path, seen: int, kinds: set[str]):
    late = Period(0, (ME,), genesis=GENESIS, first=60)
    event = InputsCommitted(block=Block(seen), commitment=late.commitment)
    assert published(tmp_path / "one", afterwards=[event]).kinds() == kinds


def test_blocks_in_which_a_verifier_did_not_work_need_no_commitment(tmp_path: Path):
    told = [committed(story()[0]), relies(ORACLES), relies(block=6)]
    after = [relies(ORACLES, block=100)]  # at the last, and then it was away
    assert published(tmp_path / "one", *told, afterwards=after).audit().exact


def test_two_logs_together_convict_an_oracle_that_told_them_two_things(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    one = published(
        tmp_path / "one", *(committed(period) for period in story()), relies(ORACLES), relies(block=18)
    )
    other = published(
        tmp_path / "other",
        *(committed(period) for period in story("Another ")),
        relies(ORACLES),
        relies(block=18),
        signer=OTHER,
    )
    assert one.audit().exact
    assert other.audit().exact
    assert main(["audit", str(one.folder), "--also", str(other.folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(report["fault_counts"]) == {"oracle_equivocated"}
    assert report["oracles"]["logs_compared"] == 1
    proof = report["oracles"]["proofs"][0]
    two = [Commitment.from_json(proof[each]) for each in ("one", "other")]
    assert contradict(two[0].body, two[1].body)
    assert main(["audit", str(one.folder), "--also", str(other.folder)]) == 1
    assert f"oracle_equivocated: oracle {ORACLES}" in capsys.readouterr().out


def test_two_logs_that_were_told_the_same_are_exact_together(tmp_path: Path):
    told = [committed(period) for period in story()]
    one = published(tmp_path / "one", *told)
    other = published(tmp_path / "other", *told[1:], signer=OTHER)
    assert main(["audit", str(one.folder), "--also", str(other.folder)]) == 0


# -- reveals ---------------------------------------------------------------------------------------------------


def reveal(folder: Path, period: Period, change: Callable[[list[dict[str, Any]]], object]) -> None:
    lines = period.reveal()
    change(lines)
    folder.mkdir(exist_ok=True)
    (folder / f"{period.body.number}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def audited(tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int = 2) -> dict[str, Any]:
    one = published(tmp_path / "one", *(committed(period) for period in story(count=count)))
    main(["audit", str(one.folder), "--oracle", str(tmp_path / "reveals"), "--reveals", "99", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_what_is_revealed_is_what_was_committed_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for period in story(count=2):
        reveal(tmp_path / "reveals", period, lambda _: None)
    report = audited(tmp_path, capsys)
    assert (report["exact"], report["oracles"]["reveals_checked"]) == (True, 2)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[0].update(secret="00" * 32), "a secret of digest"),
        (lambda lines: lines[0].update(secret=None), "no secret"),
        (lambda lines: lines[0].update(number=7), "a reveal of commitment 7"),
        (lambda lines: lines[3].update(text="Something else."), "texts of root"),
        (lambda lines: lines[3].update(text=lines[4]["text"]), "a text from"),
        (lambda lines: lines[3].update(text=3), "no text and source"),
        (lambda lines: lines[3].update(text="\ud800"), "at leaf 2"),
        (lambda lines: lines.pop(), "its end before leaf 15 of 16"),
        (lambda lines: lines.append(lines[3]), "more than 16 leaves"),
        (lambda lines: lines.__setitem__(3, []), "no line of JSON for leaf 2"),
    ],
)
def test_what_is_revealed_otherwise_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[list[dict[str, Any]]], object],
    problem: str,
):
    reveal(tmp_path / "reveals", story()[0], change)
    report = audited(tmp_path, capsys, count=1)
    (fault,) = report["faults"]
    assert fault["kind"] == "oracle_reveal"
    assert problem in fault["got"]


def test_a_text_that_is_revealed_for_two_periods_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = story(count=1)[0]
    again = Period(1, (ME, THEM), previous=one.body.digest(), places=2, genesis=GENESIS)
    again.texts[0] = one.texts[5]
    again.leaves[0] = private_inputs.leaf_hash(private_inputs.salt_of(again.secret, 0), *again.texts[0])
    root = private_inputs.Tree(b"".join(again.leaves)).root
    again.body = again.body.model_copy(update={"root": root})
    again.commitment = private_inputs.commit(again.body, ORACLE)
    for period in (one, again):
        reveal(tmp_path / "reveals", period, lambda _: None)
    log = published(tmp_path / "one", committed(one), committed(again))
    assert main(["audit", str(log.folder), "--oracle", str(tmp_path / "reveals"), "--json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out.splitlines()[-1])["faults"]
    assert "given before" in fault["got"]


def test_what_is_not_revealed_is_said_and_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = audited(tmp_path, capsys, count=1)
    assert report["exact"]
    assert any("could not be checked" in note for note in report["notes"])
    assert report["oracles"]["reveals_checked"] == 0


# -- whose reveals they are, and how much of them ----------------------------------------------------------------


def twins(signer: Keypair) -> Period:
    """The first period of another oracle, of the same number and blocks."""
    period = Period(0, (ME, THEM), genesis=GENESIS, places=2, taste="Theirs: ")
    period.body = period.body.model_copy(update={"oracle": Hotkey(signer.ss58_address)})
    period.commitment = private_inputs.commit(period.body, signer)
    return period


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_oracles_nobody_is_accused_of_what_the_other_revealed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], order: int
):
    mine, theirs = story(count=1)[0], twins(STRANGER)
    reveal(tmp_path / "reveals", mine, lambda _: None)
    log = published(tmp_path / "one", *[committed(mine), committed(theirs)][::order])
    assert (
        main(["audit", str(log.folder), "--oracle", str(tmp_path / "reveals"), "--reveals", "9", "--json"])
        == 0
    )
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["oracles"]["reveals_checked"] == 1
    (note,) = [note for note in report["notes"] if "another commitment" in note]
    assert str(theirs.body.oracle) in note


class Serving:
    """An oracle's address, as it stands on the web, over plain HTTP."""

    def __init__(self, hotkey: Hotkey, periods: Sequence[Period], more: bytes = b"") -> None:
        self._hotkey = hotkey
        self._periods = {f"/v1/reveals/{period.body.number}": period for period in periods}
        self._more = more

    def __enter__(self) -> str:
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                period = outer._periods.get(self.path)
                self.send_response(404 if period is None and self.path != "/v1/status" else 200)
                self.end_headers()
                if period is not None:
                    for line in period.reveal():
                        self.wfile.write(json.dumps(line).encode() + b"\n")
                    with contextlib.suppress(OSError):
                        while outer._more:
                            self.wfile.write(outer._more)
                elif self.path == "/v1/status":
                    self.wfile.write(outer._status())

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _status(self) -> bytes:
        status = OracleStatus(
            software="scripted",
            hotkey=self._hotkey,
            netuid=4,
            genesis=GENESIS,
            block=Block(99),
            periods=(),
            source="a script",
        )
        return status.to_bytes()


def test_an_address_is_asked_for_its_own_oracles_periods(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    mine, theirs = story(count=1)[0], twins(STRANGER)
    log = published(tmp_path / "one", committed(mine), committed(theirs))
    for hotkey, periods_ in ((ORACLES, [mine]), (theirs.body.oracle, [theirs])):
        with Serving(hotkey, periods_) as url:
            assert main(["audit", str(log.folder), "--oracle", url, "--json"]) == 0
        report = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert report["oracles"]["reveals_checked"] == 1
        assert not any("could not be checked" in note for note in report["notes"])


def test_a_reveal_without_an_end_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    mine = story(count=1)[0]
    log = published(tmp_path / "one", committed(mine))
    with Serving(ORACLES, [mine], more=b"a" * (1 << 16)) as url:
        main(["audit", str(log.folder), "--oracle", url, "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert any("more than its texts can have" in note for note in report["notes"])
