"""Engines run models: they *generate* tokens for a conversation and *score* tokens that somebody claims.

The room holds one small port (:class:`Engine`) and its adapters: a transformers model in this process
(``targon.engines.transformers_engine``, which imports torch and is therefore not imported here), and an
engine in a process of its own behind a socket (:func:`connect_engine`, :func:`start_engine_process`).
It must never judge: what a score means is the verification room's business. And it never keeps what it
was asked: when a task ends, nothing of it is left.
"""

from __future__ import annotations

from targon.engines.batches import Batching, batches_of
from targon.engines.client import EngineClient, connect_engine, engine_answers
from targon.engines.errors import EngineBusy, EngineError, EngineUnavailable, TaskRefused
from targon.engines.launch import start_engine_process
from targon.engines.port import (
    Borrowed,
    Engine,
    GenerateTask,
    ModelIdentity,
    Replayed,
    ReplayTask,
    Scores,
    ScoreTask,
    Step,
    Tokenized,
)
from targon.engines.replay_by_score import replay_by_score
from targon.engines.sentence_embedder import SentenceEmbedder, open_sentence_embedder
from targon.engines.server import serve_engine
from targon.engines.text_stream import TextStream
from targon.engines.waiting import wait_for_engine

__all__ = [
    "Batching",
    "Borrowed",
    "Engine",
    "EngineBusy",
    "EngineClient",
    "EngineError",
    "EngineUnavailable",
    "GenerateTask",
    "ModelIdentity",
    "ReplayTask",
    "Replayed",
    "ScoreTask",
    "Scores",
    "SentenceEmbedder",
    "Step",
    "TaskRefused",
    "TextStream",
    "Tokenized",
    "batches_of",
    "connect_engine",
    "engine_answers",
    "open_sentence_embedder",
    "replay_by_score",
    "serve_engine",
    "start_engine_process",
    "wait_for_engine",
]
