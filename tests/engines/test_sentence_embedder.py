"""Sentence embeddings by the real model, in its process: laws, long texts, and what goes wrong."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import numpy as np
import pytest

from targon.engines import EngineUnavailable, SentenceEmbedder, TaskRefused, open_sentence_embedder
from targon.engines.minilm import DIMENSIONS, MiniLM, _folder
from targon.verification.similarity import similarity

pytestmark = pytest.mark.anyio

CAT = "The cat sat on the mat and slept in the sun."
KITTEN = "A kitten was sleeping on a rug in the sunshine."
TAXES = "Corporate tax receipts fell by three percent in the last quarter."


@pytest.fixture(scope="module")
async def embedder(anyio_backend: str) -> AsyncIterator[SentenceEmbedder]:
    async with open_sentence_embedder() as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM()


async def test_vectors_have_length_1_and_one_is_made_for_each_text(embedder):
    vectors = await embedder.embed([CAT, TAXES, ""])
    assert (vectors.shape, vectors.dtype) == ((3, DIMENSIONS), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (await embedder.embed([])).shape == (0, DIMENSIONS)


async def test_texts_that_mean_the_same_are_more_similar_than_others(embedder):
    assert await similarity(CAT, KITTEN, embedder) > 0.6
    assert await similarity(CAT, TAXES, embedder) < 0.2


async def test_a_vector_is_what_the_models_card_publishes(embedder):
    """The first numbers of "This is an example sentence", as sentence-transformers computes them."""
    (vector,) = await embedder.embed(["This is an example sentence"])
    assert vector[:4] == pytest.approx([0.0676569, 0.0634959, 0.0487131, 0.0793049], abs=1e-4)


async def test_neither_order_nor_company_changes_a_bit(embedder):
    alone = [await embedder.embed([text]) for text in (CAT, TAXES, KITTEN)]
    together = await embedder.embed([KITTEN, CAT, TAXES * 40, TAXES])
    assert together[[1, 3, 0]].tobytes() == np.concatenate(alone).tobytes()


async def test_a_text_of_many_windows_is_read_to_its_end(embedder):
    long = f"{CAT} " * 60  # some 720 tokens, three windows
    same, otherwise, taxes = await embedder.embed([long + f"{CAT} " * 60, long + f"{TAXES} " * 60, TAXES])
    assert same @ otherwise < 0.95
    assert otherwise @ taxes > same @ taxes + 0.2


@pytest.mark.parametrize(
    "text", ["\ud800 half a pair", "\x00\x01\n\n", "漢字 🜁 ﷽ ۝", "a" * 20_000, "[CLS] [SEP] [PAD]"]
)
async def test_whatever_a_prover_says_has_a_vector(embedder, text):
    (vector,) = await embedder.embed([text])
    assert np.isfinite(vector).all()


async def test_the_process_and_the_model_in_this_one_agree(embedder, model):
    (there,), here = await embedder.embed([CAT]), model.embed([CAT])[0]
    assert there == pytest.approx(here, abs=1e-5)  # another number of threads may round otherwise


async def test_texts_that_are_too_long_are_refused(embedder):
    with pytest.raises(TaskRefused, match="expected at most 8,000,000"):
        await embedder.embed(["x" * 8_000_001])


async def test_a_process_that_dies_is_replaced_with_the_next_question():
    async with open_sentence_embedder() as embedder:
        before = await embedder.embed([CAT])
        assert embedder._running is not None
        embedder._running.process.kill()
        await embedder._running.process.wait()
        with pytest.raises(EngineUnavailable, match="their process ended"):
            await embedder.embed([CAT])
        assert (await embedder.embed([CAT])).tobytes() == before.tobytes()


async def test_whoever_stops_waiting_leaves_no_answer_behind_for_the_next(tmp_path: Path):
    slow = tmp_path / "slow.py"
    slow.write_text("import sys, time\nsys.stdin.readline()\ntime.sleep(60)\n")
    embedder = SentenceEmbedder([sys.executable, str(slow)], timeout_s=0.5)
    with pytest.raises(EngineUnavailable, match=r"no answer within 0\.5 s"):
        await embedder.embed([CAT])
    with anyio.move_on_after(0.1):
        await embedder.embed([CAT])
    assert embedder._running is None


async def test_a_process_that_cannot_load_its_model_says_why(tmp_path: Path):
    failing = tmp_path / "failing.py"
    failing.write_text('print(\'{"failure": "install it"}\', flush=True)\n')
    embedder = SentenceEmbedder([sys.executable, str(failing)], timeout_s=30.0)
    with pytest.raises(EngineUnavailable, match="install it"):
        await embedder.embed([CAT])
    assert embedder._running is None


@pytest.mark.parametrize("answer", ["no JSON\\n", "[]\\n", "3\\n", "x" * 70_000])
async def test_a_process_that_says_something_else_is_no_engine(tmp_path: Path, answer: str):
    broken = tmp_path / "broken.py"
    broken.write_text(
        f"import sys\nsys.stdin.readline()\nprint('{answer}', end='', flush=True)\nsys.stdin.read()\n"
    )
    embedder = SentenceEmbedder([sys.executable, str(broken)], timeout_s=30.0)
    with pytest.raises(EngineUnavailable):
        await embedder.embed([])
    assert embedder._running is None


async def test_another_model_under_the_name_is_refused(tmp_path: Path):
    shutil.copytree(_folder(), tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(EngineUnavailable, match="expected be50c3628f2b…, as all-MiniLM-L6-v2 was published"):
        MiniLM(tmp_path / "model")
    with pytest.raises(EngineUnavailable, match=r"cannot read .* install it again"):
        MiniLM(tmp_path)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("targon.engines.minilm.PACKAGE", "no_such_package")
    with pytest.raises(
        EngineUnavailable, match="no package 'no_such_package' here; install it with `pip install"
    ):
        MiniLM()
