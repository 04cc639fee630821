"""Text that could lead a model astray. Pure functions.

What harm is possible: a passage stands in a user's turn, before an honest model, and what comes of it is verified by
computing it again; so no text makes a false answer pass, nor a true one fail. But one can make the answer worthless as
a challenge: a token of a chat template ends the turn or begins another's, so that nothing is answered; an instruction
has every prover refuse, repeat a word for ever, or end at once, and then a cheap model answers as a dear one; a prefix
of a role may be a string at which engines stop; a long word of no language costs a token a character.

Such a passage is refused, not rewritten: there is more text. What is looked at is the compatibility form (NFKC) in
which some tokenizers read it, so full-width letters and the like hide nothing. An instruction in other words than
these, or another language, gets through; it costs what is said above, of one challenge.
"""

from __future__ import annotations

import re
from typing import Final

from targon.oracle.refining.reasons import Reason

LONG_TOKEN: Final = 20
"""Characters of a word with letters and digits; keys, hashes and the like have more."""
LONG_WORD: Final = 32
"""Characters of any word."""

_TEMPLATE = re.compile(
    r"<[|a-z_/!<]|[|>]>|\[/?[a-z_]*_[a-z_]*\]|\[/?(?:inst|sys|system|user|mask|gmask|cls|sep|pad|unk|bos|eos|img)\]"
    "|\\[\\[|\\]\\]|\\{[{%]|[%}]\\}|\u2581|##",
)
"""Tokens of chat templates, and the character that tokenizers write for a space; in small letters."""
_ROLE = re.compile(
    r"\b(?:assistant|system|user|human|developer|chatbot|bot|ai|model|tool|function|instructions?|prompt"
    r"|question|answer|query|response|input|output|q|a)\s{0,2}(?:\([^)]{0,20}\)\s?)?:(?!\w)",
)
_INSTRUCTION = re.compile(
    r"\b(?:(?:ignore|disregard|forget|override|bypass|neglect|discard|skip)\s(?:\S+\s){0,5}?"
    r"(?:instructions?|prompts?|directions|directives|guidelines|constraints|commands"
    r"|(?:previous|prior|above|preceding|earlier)\s(?:text|messages?|context|conversation|rules|input))"
    r"|(?:forget|ignore|disregard)\s(?:everything|anything|all)\s(?:above|before|you|i|said|written|else)\b"
    r"|(?:new|updated|following|hidden|secret|special)\s(?:system\s)?(?:instructions?|prompt)\b"
    r"|(?:system|developer|initial|hidden|original)\s(?:prompts?|messages?|instructions?)\b"
    r"|developer\smode|do\sanything\snow|jailbr[eo]\w+|prompt\sinjections?"
    r"|you\sare\s(?:now\s)?(?:an?\s)?(?:\w+\s)?(?:chatgpt|gpt|assistant|chatbot|ai|language\smodel|llm|dan)\b"
    r"|(?:as\s)?an?\s(?:\w+\s){0,2}(?:ai|language)\s(?:language\s)?(?:model|assistant)"
    r"|(?:respond|reply|answer|output|print|write|say|return|repeat)\s(?:back\s)?"
    r"(?:exactly|only\swith|nothing\selse|with\sonly|in\sjson|with\sthe\sword|the\sfollowing|the\sword|the\sphrase|the\sabove"
    r"|forever|after\sme|verbatim)\b"
    r"|(?:do\snot|don't|don’t|never|must\snot)\s(?:answer|respond|reply|reveal|output)\b"
    r"|(?:pretend|act)\s(?:that\s|as\sif\s)?(?:you\s(?:are|were)|to\sbe\san?\s(?:ai|assistant))"
    r"|(?:from\snow\son|starting\snow|instead),?\s(?:you|only|always)\s(?:will|must|should|are|respond|answer)"
    r"|(?:end|stop)\sof\s(?:text|prompt|turn|conversation|message|sequence|document)\b"
    r"|(?:end|stop)\s(?:the|your)\s(?:answer|response|generation|output|conversation)"
    r"|your\s(?:instructions|guidelines|training\sdata|knowledge\scutoff|programming)\b"
    r"|(?:large\s)?language\smodels?\sreading\sthis)",
)
_TOOL_CALL = re.compile(
    r"[{\[,]\s*[\"'][\w\-]{1,40}[\"']\s*:|[\"'](?:name|arguments|parameters|function|tool|role|content|type)[\"']\s*:"
    r"|\b(?:tool|function)[_\s]?calls?\b\s*[:=({]|\b\w+_call_id\b",
)
_PIECES = re.compile(r"[\s\-–—…]+")


def injection(text: str) -> Reason | None:
    """What in a text could lead a model astray.

    Args:
        text: cleaned, in its compatibility form (NFKC), in small letters.
    """
    if _TEMPLATE.search(text):
        return Reason.TEMPLATE_TOKEN
    if _TOOL_CALL.search(text):
        return Reason.TOOL_CALL
    if ":" in text and _ROLE.search(text):
        return Reason.ROLE_PREFIX
    if _INSTRUCTION.search(text):
        return Reason.INSTRUCTION
    return Reason.BLOB if _has_blob(text) else None


def _has_blob(text: str) -> bool:
    longest = [word for word in text.split() if len(word) >= LONG_TOKEN]
    return any(
        max(map(len, _PIECES.split(word))) >= LONG_WORD
        or (any(map(str.isdigit, word)) and any(map(str.isalpha, word)))
        or (len(word) >= LONG_WORD and sum(word.count(mark) for mark in "/+=_-") >= 3)
        for word in longest
    )
