"""Vectors of the sampler and of what its noise is drawn from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from targon.protocol.messages import Sampling
from targon.protocol.philox import philox4x32
from targon.protocol.primitives import u64_hex
from targon.protocol.replay import replay_tokens
from targon.protocol.sampler import (
    candidates,
    check_replayable,
    check_sampling,
    choose,
    gumbel_of,
    noise_words,
    scaled,
)
from targon.protocol.vectors.rule import Json, Rule

_KEY = "0123456789abcdef"
_LAST = (1 << 32) - 1
_LOGITS = [1.5, -0.25, 3.0, 0.0, 2.5, -4.0, 3.0, 1.0, -1.5, 0.5]

LOW_WORD = {"run_key": _KEY, "position": 118_070, "choice": 0, "token_id": 26_866}
"""Where the noise word is 0, found by search."""
HIGH_WORD = {"run_key": _KEY, "position": 35_746, "choice": 0, "token_id": 16_196}
"""Where the noise word is 2³² − 1, found by search."""


def _philox(given: Json) -> Json:
    counter, key = ([int(word, 16) for word in given[name]] for name in ("counter", "key"))
    c0, c1, c2, c3 = (np.array(word, dtype=np.uint64) for word in counter)
    return [f"{int(word):08x}" for word in philox4x32((c0, c1, c2, c3), (key[0], key[1]))]


PHILOX = Rule(
    name="philox",
    about="Philox4x32 with 10 rounds. Words are 32 bits, as hex. The first three cases are the known answers of "
    "the Random123 library.",
    inputs={
        "all zeros": {"counter": ["00000000"] * 4, "key": ["00000000"] * 2},
        "all ones": {"counter": ["ffffffff"] * 4, "key": ["ffffffff"] * 2},
        "digits of pi": {
            "counter": ["243f6a88", "85a308d3", "13198a2e", "03707344"],
            "key": ["a4093822", "299f31d0"],
        },
        "tokens 4 to 7, position 2, choice 3": {
            "counter": ["00000001", "00000002", "00000003", "00000000"],
            "key": ["89abcdef", "01234567"],
        },
    },
    evaluate=_philox,
)


def _noise(given: Json) -> Json:
    token = given["token_id"]
    block = np.array(token // 4, dtype=np.uint64)
    words = noise_words(int(given["run_key"], 16), given["position"], given["choice"], block)
    word = words[token % 4]
    return {"x": int(word), "u": (int(word) + 0.5) / 2**32, "g": float(gumbel_of(word))}


NOISE = Rule(
    name="noise",
    about="The noise of one token: x is word token_id % 4 of Philox4x32-10 with counter (token_id // 4, position, "
    "choice, 0) and key (low half of run_key, high half); u = (x + 0.5) / 2^32; g = -ln(-ln u), in float64.",
    inputs={
        **{
            f"token {token}": {"run_key": _KEY, "position": 0, "choice": 0, "token_id": token}
            for token in (0, 1, 2, 3, 4, 49_151)
        },
        "position 1": {"run_key": _KEY, "position": 1, "choice": 0, "token_id": 0},
        "choice 1": {"run_key": _KEY, "position": 0, "choice": 1, "token_id": 0},
        "last position": {"run_key": _KEY, "position": _LAST, "choice": 0, "token_id": 5},
        "key 0": {"run_key": "0" * 16, "position": 0, "choice": 0, "token_id": 0},
        "only the key's low half": {"run_key": "00000000ffffffff", "position": 0, "choice": 0, "token_id": 0},
        "only the key's high half": {
            "run_key": "ffffffff00000000",
            "position": 0,
            "choice": 0,
            "token_id": 0,
        },
        "largest token id": {"run_key": "f" * 16, "position": 9, "choice": 127, "token_id": (1 << 31) - 1},
        "the least word": LOW_WORD,
        "the greatest word": HIGH_WORD,
    },
    evaluate=_noise,
)


def _draw(**changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    base = {"temperature": 0.8, "top_p": 1.0, "top_k": 0, "choice": 0, "position": 0, "run_key": _KEY}
    return {"logits": _LOGITS} | base | changes


def sampling_of(given: Json) -> Sampling:
    """The sampling parameters of an input, those that it leaves out at their defaults."""
    names = ("dialect", "temperature", "top_p", "top_k", "choice")
    fields = {name: given[name] for name in names if name in given}
    return Sampling.from_json({"seed": u64_hex(0), "max_tokens": 1} | fields)


def _sampler(given: Json) -> Json:
    sampling = sampling_of(given)
    logits = np.array([float(logit) for logit in given["logits"]], dtype=np.float32)
    token = choose(logits, sampling, int(given["run_key"], 16), given["position"])
    if sampling.temperature == 0.0:
        return {"token_id": token}
    kept = candidates(scaled(logits, sampling.temperature), sampling.top_k, sampling.top_p)
    return {"candidates": kept.tolist(), "token_id": token}


SAMPLER = Rule(
    name="sampler",
    about="The token at one position. Logits are float32, by token id; the strings '-inf', 'inf' and 'nan' stand "
    "for what JSON has no number for. Candidates are given in id order; at T = 0 there is no cut, so none are.",
    inputs={
        **{f"position {position}": _draw(position=position) for position in range(6)},
        "last position": _draw(position=_LAST),
        "choice 1": _draw(choice=1),
        "choice 127": _draw(choice=127),
        "another key": _draw(run_key="fedcba9876543210"),
        "key with its highest bit set": _draw(run_key="f" * 16),
        "T = 0": _draw(temperature=0.0),
        "T = 0, a tie goes to the lowest id": _draw(logits=[1.0, 2.0, 2.0, 2.0], temperature=0.0),
        "T = 0 knows no cuts": _draw(temperature=0.0, top_k=1, top_p=0.01),
        "greedy": _draw(dialect="greedy", temperature=0.0),
        "lowest temperature": _draw(temperature=0.05),
        "temperature 2": _draw(temperature=2.0),
        "top-k 1": _draw(top_k=1),
        "top-k 1 among equals keeps the lowest id": _draw(logits=[0.0] * 8, top_k=1),
        "top-k 3 through a tie": _draw(logits=[5.0, 1.0, 1.0, 1.0, 1.0], top_k=3, temperature=1.0),
        "top-k larger than the vocabulary": _draw(top_k=1000),
        "top-p so small that one is left": _draw(top_p=1e-9),
        "top-p 0.9": _draw(top_p=0.9),
        "top-p 0.5 of four equals keeps exactly two": _draw(logits=[0.0] * 4, top_p=0.5, temperature=1.0),
        "top-p just over 0.5 of four equals keeps three": _draw(
            logits=[0.0] * 4, top_p=0.5000001, temperature=1.0
        ),
        "top-p of the top-k that are left": _draw(
            logits=[0.0] * 8, top_k=4, top_p=0.75, temperature=1.0, position=3
        ),
        "all equal": _draw(logits=[0.0] * 10),
        "a shift changes nothing": _draw(logits=[logit - 100.0 for logit in _LOGITS]),
        "-inf is never drawn": _draw(logits=["-inf", 0.0, "-inf", "-inf"]),
        "one token": _draw(logits=[0.0]),
        "huge logits": _draw(logits=[3.0e38, -3.0e38, 3.0e38], temperature=0.05),
        "a close race is decided by the noise": _draw(logits=[0.0, 1e-6, 2e-6, 3e-6], temperature=1.0),
        "temperature over 0 and under 0.05": _draw(temperature=0.049),
        "greedy with a temperature": _draw(dialect="greedy"),
        "a dialect with noise of its own": _draw(dialect="native"),
        "NaN": _draw(logits=[0.0, "nan"]),
        "+inf": _draw(logits=[0.0, "inf"]),
        "all -inf": _draw(logits=["-inf", "-inf"]),
    },
    evaluate=_sampler,
)


def _check_sampling(given: Json) -> Json:
    sampling = Sampling.from_json(given)
    check_sampling(sampling)
    check_replayable(sampling)
    return {"accepted": True}


def _parameters(**changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    return {"seed": _KEY, "temperature": 0.8, "max_tokens": 64} | changes


SAMPLING = Rule(
    name="sampling",
    about="Which sampling parameters are served by targon/1 or greedy, and which are refused.",
    inputs={
        "the least that is needed": _parameters(),
        "greedy": _parameters(dialect="greedy", temperature=0),
        "lowest temperature": _parameters(temperature=0.05),
        "highest temperature": _parameters(temperature=10.0),
        "temperature too low to divide by": _parameters(temperature=0.01),
        "negative temperature": _parameters(temperature=-0.1),
        "temperature too high": _parameters(temperature=10.1),
        "greedy with a temperature": _parameters(dialect="greedy"),
        "unknown dialect": _parameters(dialect="targon/2"),
        "dialect that cannot be replayed": _parameters(dialect="native"),
        "top-p 0": _parameters(top_p=0.0),
        "top-p over 1": _parameters(top_p=1.01),
        "negative top-k": _parameters(top_k=-1),
        "choice 128": _parameters(choice=128),
        "seed in upper case": _parameters(seed="ABCDEF0123456789"),
        "seed too short": _parameters(seed="1"),
        "no tokens": _parameters(max_tokens=0),
        "empty stop string": _parameters(stop=[""]),
        "five stop strings": _parameters(stop=["a", "b", "c", "d", "e"]),
        "frequency penalty": _parameters(frequency_penalty=0.5),
        "presence penalty": _parameters(presence_penalty=0.5),
        "repetition penalty": _parameters(repetition_penalty=1.1),
        "logit bias": _parameters(logit_bias={"5": 1.0}),
        "min-p": _parameters(min_p=0.1),
        "grammar": _parameters(grammar="root ::= [0-9]+"),
    },
    evaluate=_check_sampling,
)


def _replay(given: Json) -> Json:
    result = replay_tokens(
        np.array([given["ids"]]),
        np.array([given["logprobs"]], dtype=np.float32),
        np.array([given["claimed"]]),
        np.array([given["claimed_logprob"]], dtype=np.float32),
        vocab_size=given["vocab_size"],
        sampling=sampling_of(given),
        run_key=int(given["run_key"], 16),
        first_position=given["position"],
    )
    return {
        "best_id": int(result.best_ids[0]),
        "gap": float(result.gaps[0]),
        "margin": float(result.margins[0]),
        "among": bool(result.among[0]),
        "unsure": bool(result.unsure[0]),
        "on_cut": bool(result.on_cut[0]),
        "tail_mass": None if math.isnan(result.tail_mass[0]) else float(result.tail_mass[0]),
        "in_tail": bool(result.in_tail[0]),
        "rivals": int(result.rivals[0]),
        "claimed_rivals": int(result.claimed_rivals[0]),
    }


_PROBABILITIES = (0.4, 0.2, 0.15, 0.1, 0.055, 0.035, 0.03, 0.02, 0.006, 0.004)


def _claim(claimed: int, seen: int = 10, **changes: Any) -> dict[str, Json]:  # noqa: ANN401 - any JSON value
    logprobs = [float(np.float32(np.log(probability))) for probability in _PROBABILITIES]
    base = {"ids": list(range(seen)), "logprobs": logprobs[:seen], "vocab_size": 10, "claimed": claimed}
    draw = {"claimed_logprob": logprobs[claimed], "temperature": 1.0, "position": 0, "run_key": _KEY}
    return base | draw | changes


REPLAY = Rule(
    name="replay",
    about="What the sampler, replayed over a reference's log-probabilities of one position, says of a claimed token: "
    "the best token, its lead over the second, the claimed token's margin (both at most 10, and 10 for a token "
    "that is no candidate), whether it was a candidate, whether unseen tokens could change that, and whether the "
    "draw hangs on where exactly the cut falls; further the probability that a token is drawn whose own is below "
    "0.05 (null: not known), and whether the claimed one is; and the codes of the rivals under each suspicion.",
    inputs={
        **{f"whole vocabulary, token {token} claimed": _claim(token) for token in range(4)},
        "top-k 2, a token outside": _claim(5, top_k=2),
        "top-p 0.7, a token outside": _claim(6, top_p=0.7),
        "top-p 0.74, just below what the first three hold": _claim(0, top_p=0.74),
        "top-p 0.76, just above": _claim(0, top_p=0.76),
        "alone": _claim(0, top_k=1),
        "greedy": _claim(0, temperature=0.0),
        "greedy, the second": _claim(1, temperature=0.0),
        "5 seen": _claim(0, seen=5),
        "5 seen, a token outside": _claim(7, seen=5),
        "5 seen, top-k 3": _claim(1, seen=5, top_k=3),
        "5 seen, top-p 0.5": _claim(1, seen=5, top_p=0.5),
        "5 seen, top-p 0.5 at T = 0.7": _claim(1, seen=5, top_p=0.5, temperature=0.7),
        "5 seen, top-p 0.99": _claim(8, seen=5, top_p=0.99),
        "3 seen, top-p 0.8 at T = 1.5": _claim(2, seen=3, top_p=0.8, temperature=1.5),
        "2 seen, greedy, a token outside": _claim(4, seen=2, temperature=0.0),
        "a rival that T + 0.2 would draw": _claim(3, position=16),
        "two rivals, the colder one claimed": _claim(0, position=23),
        "two rivals, the other one claimed": _claim(3, position=23),
        "nobody's rival": _claim(9, position=23),
        "a rival beyond top-p 0.7": _claim(4, top_p=0.7, position=32),
        "rivals at T = 0.12, two temperatures too low": _claim(2, temperature=0.12, position=26),
        "one rival of all, 5 seen, top-p 0.7": _claim(1, seen=5, top_p=0.7, position=27),
        "rivals, 5 seen, top-p 0.7": _claim(0, seen=5, top_p=0.7, position=42),
    },
    evaluate=_replay,
)

RULES = (PHILOX, NOISE, SAMPLER, SAMPLING, REPLAY)
