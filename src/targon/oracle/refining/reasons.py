"""Why a draw gives no passage: one word each, by which refusals are counted, logged and exported."""

from __future__ import annotations

from enum import Enum


class Reason(Enum):
    """In the order in which they are looked for; the first that holds is counted."""

    # where the draw fell
    NO_SENTENCES = "no_sentences"
    """No run of whole sentences of a passage's length covers it."""
    EVENNESS = "evenness"
    """A run covers it, but beyond its first 120 characters: so that a long one isn't drawn more often. No fault."""

    # what the text is made of
    MIS_DECODED = "mis_decoded"
    """Bytes that were read in another encoding than they were written in, or halves of characters."""
    HIDDEN = "hidden"
    """Characters that can't be seen and aren't there by chance: control characters, turned directions, tags."""
    UNPRINTABLE = "unprintable"
    """Characters that are private to a font, or not assigned; or heaps of accents."""
    MIXED_SCRIPT = "mixed_script"
    """A word of letters of two scripts: letters that look alike stand for others."""
    LENGTH = "length"
    """Not 120 to 240 characters, once it is clean."""

    # what could lead a model astray
    TEMPLATE_TOKEN = "template_token"  # noqa: S105 - the name of a reason
    ROLE_PREFIX = "role_prefix"
    INSTRUCTION = "instruction"
    TOOL_CALL = "tool_call"
    BLOB = "blob"
    """Base64, a key, a hash: a long word that isn't one."""

    # what is somebody's own
    EMAIL = "email"
    HANDLE = "handle"
    URL = "url"
    SECRET = "secret"  # noqa: S105 - the name of a reason
    CARD = "card"
    IBAN = "iban"
    SSN = "ssn"
    IDENTITY = "identity"
    """Letters and digits as states, makers and maps name people, devices and places."""
    IP_ADDRESS = "ip_address"
    LONG_NUMBER = "long_number"
    """Seven digits or more: a telephone, an account, an identity."""
    STREET_ADDRESS = "street_address"
    SALUTATION = "salutation"
    """A letter to somebody, or somebody who says their name."""

    # what isn't prose
    MARKUP = "markup"
    CODE = "code"
    LIST = "list"
    BOILERPLATE = "boilerplate"
    TRUNCATED = "truncated"
    REPETITION = "repetition"
    CAPITALS = "capitals"
    DIGITS = "digits"
    SYMBOLS = "symbols"
    WORDS = "words"
    """Too few, too short or too long ones."""
    LANGUAGE = "language"

    # what was taken before
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
