"""What an engine can do, found out by asking it to, and whether it runs the model that it should.

Nothing is believed that can be tried: an engine's version says little about the flags it was started with, and its
model's name nothing about the weights. Each probe is one or two short requests; all together take about as long as
two hundred generated tokens. A probe that the engine refuses shows that it can't; an engine that fails ends them.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final

import numpy as np

from targon.engines.errors import EngineUnavailable, TaskRefused
from targon.engines.model_card import CONVERSATIONS, greedy
from targon.engines.port import Step
from targon.engines.remote.answers import difference, first_difference, most_events, reading, steps
from targon.engines.remote.backend import Backend, Chunk, Served
from targon.engines.remote.capabilities import (
    FLOAT32_DIFFERENCE,
    HALF_DIFFERENCE,
    Capabilities,
    Finding,
    Judgement,
    advice,
)
from targon.engines.remote.folder import ModelFolder
from targon.protocol.messages import ChatMessage, Dialect, Sampling
from targon.protocol.primitives import TokenId, u64_hex
from targon.protocol.sampler import choose
from targon.protocol.text import Decode

SAMPLER_TEMPERATURE: Final = 10.0
"""The highest there is: the eight most likely tokens are about as likely as one another then, whatever the model."""
SAMPLER_TOKENS: Final = 16
SAMPLER_CANDIDATES: Final = 8
"""Few enough that any engine lists them all: then its draws can be replayed from its own log-probabilities."""

SAMPLER_SLIPS: Final = 2
"""So many draws may differ: an engine that can only say afterwards, by a prefill, how likely its tokens were, may turn
a near-tie in half precision. Other samplers agree in a quarter of them at most: with 14 of 16 never."""

LIST_LENGTHS: Final = (-1, 1000, 500, 200, 100, 50, 20, 10, 5, 1)
"""Numbers of prompt log-probabilities that are tried; -1: the whole vocabulary."""

PLAIN_TEXT: Final = "The quick brown fox: 3.14159, naïve café, 漢字 😀,\n\ttabs  and   spaces."


async def probe(backend: Backend, folder: ModelFolder, served: Served) -> Capabilities:
    """Try everything. Raises ``EngineUnavailable`` if the engine fails.

    Args:
        folder: the model that it should run.
        served: what it says of itself.
    """
    return await _Probing(backend, folder, served).all()


async def difference_since(backend: Backend, folder: ModelFolder, before: Capabilities) -> str | None:
    """What makes an engine another one than when it was probed, in words; None if nothing is seen to.

    It is asked again what it was asked then: a conversation, others if that one differs, and some draws of the
    sampler. A version may change; what it answers may not.

    Raises:
        EngineUnavailable: if it fails.
    """
    probing = _Probing(backend, folder, before.served)
    limit = FLOAT32_DIFFERENCE if before.dtype == "float32" else HALF_DIFFERENCE
    differing = None
    # in half precision a near-tie may turn at the first token of one of them, but hardly of all
    for messages, said in zip(CONVERSATIONS, before.said, strict=False):
        asked = greedy(messages)
        now = [step async for step in probing.steps(asked.messages, asked.sampling)]
        differing = _differing(now, said, limit)
        if differing is None:
            break
    if differing is not None:
        return f"{differing}: it runs another model, or in another number format"
    if "targon/1" in before.dialects and not await probing.runs_the_sampler():
        return "its draws are no more those of the protocol sampler: it was started without the plugin"
    return None


def _differing(now: Sequence[Step], said: Sequence[Step], limit: float) -> str | None:
    """What makes one answer another engine's than an earlier one, in words; None if nothing does."""
    pairs = list(takewhile(lambda pair: pair[0].token_id == pair[1].token_id, zip(now, said, strict=False)))
    apart = [abs(one.logprob - other.logprob) for one, other in pairs]
    if len(pairs) >= len(said) / 4 and not (all(map(math.isfinite, apart)) and np.mean(apart) > limit):
        return None
    mean = float(np.mean(apart)) if apart else math.nan
    return (
        f"{len(pairs)} of {len(said)} tokens are those that it said when it was probed, their log-probabilities "
        f"{mean:.2g} apart on average"
    )


@dataclass(slots=True)
class _Probing:
    backend: Backend
    folder: ModelFolder
    served: Served
    findings: list[Finding] = field(default_factory=list)
    difference: float | None = None

    async def all(self) -> Capabilities:
        context_length = self._context_length()
        await self._tokenizer()
        try:
            return await self._work(context_length)
        except EngineUnavailable as error:
            if all(finding.judgement != "bad" for finding in self.findings):
                raise
            # another tokenizer makes for answers that contradict the model's: that it is another is what to say
            self._find("answers", "bad", str(error))
            return self._found(context_length)

    async def _work(self, context_length: int) -> Capabilities:
        """Everything that takes generating."""
        text_only = self.backend.kind == "openai"
        answers = [] if text_only else await self._weights()
        token_ids = bool(answers)
        logprobs = token_ids and all(math.isfinite(step.logprob) for steps in answers for step in steps)
        dialects: list[Dialect] = []
        if token_ids:
            if logprobs and await self.runs_the_sampler():
                dialects.append("targon/1")
            dialects.append("greedy")
        dialects.append("native")
        lists = await self._prompt_logprobs(answers) if token_ids else 0
        seeds = await self._keeps_to_seeds()
        found = replace(
            self._found(context_length),
            dialects=tuple(dialects),
            token_ids=token_ids,
            logprobs=logprobs,
            prompt_logprobs=lists,
            seeds=seeds,
            said=tuple(map(tuple, answers)),
        )
        return replace(found, findings=(*found.findings, *advice(found, self.folder.vocab_size)))

    def _found(self, context_length: int) -> Capabilities:
        """What was found so far, of an engine that can do nothing."""
        return Capabilities(
            kind=self.backend.kind,
            served=self.served,
            dialects=(),
            token_ids=False,
            logprobs=False,
            prompt_logprobs=0,
            seeds=False,
            context_length=context_length,
            difference=self.difference,
            findings=tuple(self.findings),
        )

    def _find(self, what: str, judgement: Judgement, got: str, advice: str = "") -> None:
        self.findings.append(Finding(what, judgement, got, advice))

    def _context_length(self) -> int:
        says, model = self.served.context_length, self.folder.context_length
        length = min(says or model, model)
        if says is None:
            self._find("context length", "note", f"{model}, as the model has it: the engine doesn't say")
        elif says < model:
            advice = (
                "longer requests are refused; start the engine with a longer context if verifiers send them"
            )
            self._find("context length", "good", f"{says} of the model's {model}", advice)
        else:
            self._find("context length", "good", f"{length}")
        vocabulary = self.served.vocab_size
        if vocabulary not in (None, self.folder.vocab_size):
            self._find(
                "vocabulary",
                "bad",
                f"{vocabulary} tokens, expected {self.folder.vocab_size}",
                f"the engine runs another model than that of {self.folder.path}",
            )
        return length

    async def _tokenizer(self) -> None:
        """Whether the engine's own tokenizer and template are the model's."""
        chat = self.folder.chat
        text = await self.backend.tokenize(PLAIN_TEXT)
        if text is None:
            self._find("tokenizer", "note", "the engine doesn't tell")
        elif text != (own := chat.encode_text(PLAIN_TEXT)):
            self._find(
                "tokenizer",
                "bad",
                f"another: {difference(text, own)}",
                f"give the engine the tokenizer of {self.folder.path}, or name the folder of the model that it runs "
                "(--engine.model)",
            )
            return
        else:
            self._find("tokenizer", "good", "the model's")
        for messages in CONVERSATIONS:
            rendered = await self.backend.render(messages)
            if rendered is None:
                self._find("chat template", "note", "the engine doesn't tell")
                return
            own = chat.encode(messages)
            if rendered != own:
                self._find(
                    "chat template",
                    "bad",
                    f"another: {_both(chat.decode, rendered, own)}",
                    f"give the engine the template of {self.folder.path} (vLLM: --chat-template, llama.cpp: "
                    "--chat-template-file), or name the folder of the model that it runs (--engine.model)",
                )
                return
        self._find("chat template", "good", "the model's")

    async def _weights(self) -> list[list[Step]]:
        """The greedy answers to the card's conversations, compared with the card."""
        answers = []
        for messages in CONVERSATIONS:
            asked = greedy(messages)
            try:
                answers.append([step async for step in self.steps(asked.messages, asked.sampling)])
            except TaskRefused as error:
                self._find(
                    "weights", "bad", f"not compared: {error}", "see what in the request it can't serve"
                )
                return []
        card = self.folder.card
        if card is None:
            self._find(
                "weights",
                "note",
                "not compared: the model has no card",
                "make one on a machine that can run the model in float32: `targon engine card`",
            )
            return answers
        differences, agreed = [], 0
        for answer, expected in zip(answers, card.answers, strict=True):
            for step, token_id, logprob in zip(answer, expected.token_ids, expected.logprobs, strict=False):
                if step.token_id != token_id:
                    break
                agreed += 1
                differences.append(abs(step.logprob - logprob))
        total = sum(len(expected.token_ids) for expected in card.answers)
        if agreed < total / 4:
            self._find(
                "weights",
                "bad",
                f"another model's: {agreed} of {total} tokens as the model says them",
                f"load the model of {self.folder.path}, or name the one that it runs (--engine.model)",
            )
            return answers
        if all(map(math.isfinite, differences)):
            self.difference = float(np.mean(differences))
            self._precision(self.difference, agreed, total)
        else:
            self._find("weights", "good", f"{agreed} of {total} tokens as the model says them")
        return answers

    def _precision(self, apart: float, agreed: int, total: int) -> None:
        seen = f"log-probabilities {apart:.2g} apart on average, {agreed} of {total} tokens agree"
        if apart <= FLOAT32_DIFFERENCE:
            self._find("weights", "good", f"the model's, computed in float32 ({seen})")
        elif apart <= HALF_DIFFERENCE:
            self._find("weights", "good", f"the model's, computed in half precision or so ({seen})")
        else:
            self._find(
                "weights",
                "bad",
                f"not the model's own: {seen}",
                "quantized weights or another revision are convicted sooner or later; load the model's own",
            )

    async def runs_the_sampler(self) -> bool:
        """Whether draws are those of ``targon/1``, replayed from the engine's own log-probabilities.

        At this temperature any candidate is drawn, however sure a model is of its next token. An answer may end
        early, so several may be asked for.
        """
        sampling = Sampling(
            seed=u64_hex(0),
            temperature=SAMPLER_TEMPERATURE,
            top_k=SAMPLER_CANDIDATES,
            max_tokens=SAMPLER_TOKENS,
        )
        drawn, agreed = 0, 0
        try:
            for run_key, messages in enumerate(CONVERSATIONS, start=0x7A96_0451_C0FF_EE11):
                position = 0
                async with aclosing(self._chunks(messages, sampling, run_key, SAMPLER_CANDIDATES)) as chunks:
                    async for chunk in chunks:
                        for token_id, likely in zip(chunk.token_ids, chunk.top, strict=True):
                            logits = np.full(self.folder.vocab_size, -np.inf, np.float32)
                            logits[list(likely)] = list(likely.values())
                            agreed += choose(logits, sampling, run_key, position) == token_id
                            position += 1
                drawn += position
                if drawn >= SAMPLER_TOKENS or drawn - agreed > SAMPLER_SLIPS:
                    break
        except (TaskRefused, LookupError, ValueError):
            return False
        return drawn >= SAMPLER_TOKENS and drawn - agreed <= SAMPLER_SLIPS

    async def _keeps_to_seeds(self) -> bool:
        """Whether an engine's own sampler repeats itself when it is given the same seed."""
        sampling = Sampling(dialect="native", seed=u64_hex(0), temperature=1.2, max_tokens=8)
        seen = []
        for run_key in (11, 11, 12):
            text: list[object] = []
            try:
                async with aclosing(self._chunks(CONVERSATIONS[1], sampling, run_key, 0)) as chunks:
                    async for chunk in chunks:
                        text += chunk.token_ids
            except TaskRefused:
                return False
            seen.append(text)
        return seen[0] == seen[1] != seen[2]

    async def _prompt_logprobs(self, answers: list[list[Step]]) -> int:
        """The most log-probabilities of given tokens that can be had; compared with those of generating them."""
        prompt = self.folder.chat.encode(CONVERSATIONS[0])
        for length in LIST_LENGTHS:
            try:
                with reading(self.backend):
                    await self.backend.prompt_logprobs(self.served.model, prompt[:2], length)
            except TaskRefused:
                continue
            claimed = tuple(step.token_id for step in answers[0])
            sent = np.array((*prompt, *claimed), np.int64)
            try:
                with reading(self.backend):
                    scored = await self.backend.prompt_logprobs(self.served.model, sent.tolist(), 1)
            except TaskRefused as error:
                self._find("scores", "bad", f"none of {sent.size} tokens: {error}", "it can be no reference")
                return 0
            if not np.array_equal(scored.token_ids, sent[1:]):
                self._find(
                    "scores",
                    "bad",
                    f"of {scored.token_ids.size + 1} tokens that are not the {sent.size} that it was sent",
                    "something between it and us cuts requests short, or mixes them up: name the engine itself",
                )
                return 0
            own = np.array([step.logprob for step in answers[0]])
            apart = float(np.abs(scored.logprobs[-len(claimed) :] - own).mean())
            if not apart <= HALF_DIFFERENCE:
                self._find(
                    "scores",
                    "bad",
                    f"log-probabilities of its own answer are {apart:.2g} off on average when it is given",
                    "report them before temperature and processors (vLLM: --logprobs-mode raw_logprobs)",
                )
            return self.folder.vocab_size if length < 0 else length
        return 0

    def steps(self, messages: tuple[ChatMessage, ...], sampling: Sampling) -> AsyncGenerator[Step, None]:
        return steps(self.backend, self.served.model, self.folder, self.folder.prompt(messages), sampling, 0)

    async def _chunks(
        self, messages: tuple[ChatMessage, ...], sampling: Sampling, run_key: int, top: int
    ) -> AsyncGenerator[Chunk, None]:
        """The chunks of an answer, and no more of them than it may have."""
        prompt, left = self.folder.prompt(messages), most_events(sampling.max_tokens)
        generated = self.backend.generate(self.served.model, prompt, sampling, run_key, top=top)
        with reading(self.backend):
            async with aclosing(generated) as chunks:
                async for chunk in chunks:
                    yield chunk
                    left -= 1
                    if not left:
                        return


def _both(decode: Decode, got: tuple[TokenId, ...], expected: tuple[TokenId, ...]) -> str:
    """Where two renderings differ first: in tokens, and as text."""
    place = first_difference(got, expected)
    own = decode(expected[place : place + 8])
    try:
        return f"got {decode(got[place : place + 8])!r} at token {place}, expected {own!r}"
    except (OverflowError, TypeError):  # they are no token ids
        return difference(got, expected)
