"""What every node must compute alike.

Messages and their canonical digests, receipts, statements about TLS keys, the verifier's draws, the sampler
``targon/1`` and its replay, prompts and answer texts, the block schedule, tiers, rewards and weights: pure
functions over frozen types, each rule with a file of conformance vectors, so that a prover or an auditor
written in another language can be checked without this code.

This room never does I/O, reads no clock, draws no global randomness and imports nothing else of targon. A
change to what any of it computes changes ``SPEC_VERSION``.
"""

from targon.protocol.canonical import canonical_bytes, digest
from targon.protocol.conviction import ALPHA, CONVICTION, Sentence, convicts, sentence
from targon.protocol.countersignatures import Countersignature, CountersignatureBody
from targon.protocol.draws import (
    challenge_draw,
    commitment,
    interval_secret,
    private_input_draw,
    query_seed,
    request_run_key,
    request_seed,
    run_key,
    selection_rank,
)
from targon.protocol.errors import (
    InvalidLogits,
    InvalidSignature,
    MalformedMessage,
    ProtocolError,
    ReceiptMismatch,
    SegmentMismatch,
    StatementMismatch,
    UnsupportedSampling,
    VectorMismatch,
)
from targon.protocol.filed import AuditStatement, ReceiptStatement
from targon.protocol.keys import Signer, hotkey_of, public_key, verify_signature
from targon.protocol.messages import (
    ChatMessage,
    Completion,
    Dialect,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    Message,
    ProverStatus,
    Receipt,
    ReceiptBody,
    Sampling,
    TokenEvent,
)
from targon.protocol.orders import Order
from targon.protocol.primitives import (
    SPEC_VERSION,
    AttemptNumber,
    Block,
    Digest,
    Hotkey,
    Interval,
    TokenId,
    Uid,
    u64_hex,
)
from targon.protocol.profile import DEMO, PROFILES, STANDARD, Profile
from targon.protocol.prompt import challenge_messages, conversation, query_messages
from targon.protocol.replay import MARGIN_CLIP, TAIL_PROBABILITY, Replay, replay_tokens
from targon.protocol.rewards import (
    COUNTED_DIALECTS,
    median_speed,
    on_probation,
    score_step,
)
from targon.protocol.sampler import (
    MIN_TEMPERATURE,
    candidates,
    check_replayable,
    check_sampling,
    choose,
    gumbel,
)
from targon.protocol.schedule import (
    BLOCK_SECONDS,
    INTERVAL_BLOCKS,
    MAX_BLOCK_AGE,
    first_block,
    interval_of,
    is_fresh,
)
from targon.protocol.text import answer_text, stop_position
from targon.protocol.tiers import TIERS, Move, Record, Tier, TierRule, settle
from targon.protocol.verdicts import Outcome, Purpose
from targon.protocol.weights import MAX_WEIGHT, NoWeights, u16_weights

__all__ = [
    "ALPHA",
    "BLOCK_SECONDS",
    "CONVICTION",
    "COUNTED_DIALECTS",
    "DEMO",
    "INTERVAL_BLOCKS",
    "MARGIN_CLIP",
    "MAX_BLOCK_AGE",
    "MAX_WEIGHT",
    "MIN_TEMPERATURE",
    "PROFILES",
    "SPEC_VERSION",
    "STANDARD",
    "TAIL_PROBABILITY",
    "TIERS",
    "AttemptNumber",
    "AuditStatement",
    "Block",
    "ChatMessage",
    "Completion",
    "Countersignature",
    "CountersignatureBody",
    "Dialect",
    "Digest",
    "FinishReason",
    "GenerateRequest",
    "GenerateResponse",
    "Hotkey",
    "Interval",
    "InvalidLogits",
    "InvalidSignature",
    "MalformedMessage",
    "Message",
    "Move",
    "NoWeights",
    "Order",
    "Outcome",
    "Profile",
    "ProtocolError",
    "ProverStatus",
    "Purpose",
    "Receipt",
    "ReceiptBody",
    "ReceiptMismatch",
    "ReceiptStatement",
    "Record",
    "Replay",
    "Sampling",
    "SegmentMismatch",
    "Sentence",
    "Signer",
    "StatementMismatch",
    "Tier",
    "TierRule",
    "TokenEvent",
    "TokenId",
    "Uid",
    "UnsupportedSampling",
    "VectorMismatch",
    "answer_text",
    "candidates",
    "canonical_bytes",
    "challenge_draw",
    "challenge_messages",
    "check_replayable",
    "check_sampling",
    "choose",
    "commitment",
    "conversation",
    "convicts",
    "digest",
    "first_block",
    "gumbel",
    "hotkey_of",
    "interval_of",
    "interval_secret",
    "is_fresh",
    "median_speed",
    "on_probation",
    "private_input_draw",
    "public_key",
    "query_messages",
    "query_seed",
    "replay_tokens",
    "request_run_key",
    "request_seed",
    "run_key",
    "score_step",
    "selection_rank",
    "sentence",
    "settle",
    "stop_position",
    "u16_weights",
    "u64_hex",
    "verify_signature",
]
