"""What in a text is somebody's own: ways to reach them, to pay as them, to be them. Pure functions.

A passage with any of it is refused whole. To replace it would be no safer (what is recognised is the same) and would
leave sentences that nobody wrote. Recognition is wide, since another passage costs a fraction of a millisecond: seven
digits in a row, however they are grouped, are a telephone or an account, even where they are a date.

Names of people alone aren't recognised: prose is full of them, and they are in it because somebody published them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from targon.oracle.refining.reasons import Reason

FEWEST_DIGITS: Final = 7
"""Digits of a telephone number within its town; shorter ones are years, prices and pages."""

_EMAIL = re.compile(r"\S\s?@\s?[\w\-]+\s?\.\s?\w")
_SPELT = re.compile(
    r"\w\s?[\[({]\s?at\s?[\])}]\s?\w|\w[ _-]at[ _-]\w+[ _-]dot[ _-]\w{2}|\w\s?[\[({]\s?dot\s?[\])}]\s?\w"
)
_URL = re.compile(
    r"\w:/|\bwww\d?\.|\b(?:mailto|tel|skype|bitcoin|data|magnet|javascript):\S"
    r"|(?<=\w)\.(?:com|org|net|edu|gov|info|io|co|biz|me|ai|dev|app|onion|html?|php|[a-z]{2}/)\b"
)
_SECRET = re.compile(
    r"\b(?:pass(?:word|code|phrase)|pin|(?:api|secret|private|access|license)[\s_\-]?(?:key|token|code)|username|login"
    r"|user\s?id)\s?(?:is|was|=|:|of)\s?\S"
    r"|\b(?:passport|social security|driver'?s licen[cs]e|national insurance|tax|account|routing|sort code|membership)"
    r"\s(?:number|no\.?|id)?\s?(?:is|was|=|:|#)"
)
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9a-f:]{2,39}(?![0-9a-z])")
_IBAN = re.compile(r"\b[a-z]{2}\d{2}(?:[ \-]?[a-z0-9]{1,4}){3,9}")
_SSN = re.compile(r"(?<!\d)\d{3}[ \-\u2010-\u2015.]\d{2}[ \-\u2010-\u2015.]\d{4}(?!\d)")
_IDENTITY = re.compile(
    r"\b[a-z]{2}\s?(?:\d{2}\s?){3}[a-d]\b|\b(?:[0-9a-f]{2}[:\-]){5}[0-9a-f]{2}\b"
    r"|\b(?=(?:[a-z]*\d){3})(?=(?:\d*[a-z]){3})[a-z0-9]{8,}\b|\b\d{1,3}\.\d{4,}\b"
)
"""What letters and digits name together: people, as states do, cars and devices; and places on a map."""
_LONG_NUMBER = re.compile(r"\d(?:[ .\-\u2010-\u2015()/+_·]{0,3}\d){6,}")
_STREET = re.compile(
    r"\b\d{1,6}[a-z]?,?\s(?:[\w.'’\-]+\s){1,2}?(?:street|avenue|ave|road|rd|boulevard|blvd|lane|highway|hwy)\b"
    r"|\b(?:p\.?\s?o\.?\s?box|postfach|apartado|suite|apartment|apt\.?)\s#?\d"
    r"|\b\w+(?:stra(?:ß|ss)e|str\.|weg|gasse|platz|laan|straat)\s\d"
    r"|\b(?:rue|avenue|calle|via|avenida|rua|ulica|ul\.)\s(?:[\w'’\-]+\s){1,4}?\d{1,4}\b"
    r"|\b[a-z]{2},\s\d{5}\b|\b\d{5}-\d{4}\b|\b[a-z]{1,2}\d[a-z\d]?\s\d[a-z]{2}\b"
)
"""In small letters."""
_NAMED_STREET = re.compile(
    r"\b\d{1,6}[A-Za-z]?,?\s(?:[A-Z0-9][\w.'’\-]*\s){1,4}(?i:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive"
    r"|dr|court|ct|square|sq|way|place|pl|terrace|close|crescent|highway|hwy|parkway|pkwy|alley|plaza|mews|row)\b"
)
_DIGIT = re.compile(r"\d")
_SALUTATION = re.compile(
    r"\b(?:Dear|Hi|Hello|Hey|Greetings|Sincerely|Regards|Cheers|Yours(?: \w+)?),?\s(?:[A-Z][\w.'’\-]*\s?){1,4}[,:!.]"
    r"|\b[Mm]y (?:full |first |last |maiden )?name is\s[A-Z]|\b[Ss]igned,?\s[A-Z]"
)


def personal(text: str) -> Reason | None:
    """What kind of somebody's own a text holds.

    Args:
        text: cleaned, in its compatibility form (NFKC).
    """
    small = text.lower()
    if "@" in small:
        return Reason.EMAIL if _EMAIL.search(small) else Reason.HANDLE
    if _SPELT.search(small):
        return Reason.EMAIL
    if _SECRET.search(small):
        return Reason.SECRET
    if ":" in small and any(_is_address(match[0]) for match in _IPV6.finditer(small)):
        return Reason.IP_ADDRESS
    if _URL.search(small):
        return Reason.URL
    if _DIGIT.search(small):
        if found := _numbers(small):
            return found
        if _STREET.search(small) or _NAMED_STREET.search(text):
            return Reason.STREET_ADDRESS
    return Reason.SALUTATION if _SALUTATION.search(text) else None


def _numbers(text: str) -> Reason | None:
    """What kind of somebody's own the digits of a text are; in small letters."""
    if _IPV4.search(text):
        return Reason.IP_ADDRESS
    if any(_is_iban(match[0]) for match in _IBAN.finditer(text)):
        return Reason.IBAN
    if _SSN.search(text):
        return Reason.SSN
    if _IDENTITY.search(text):
        return Reason.IDENTITY
    for match in _LONG_NUMBER.finditer(text):
        return Reason.CARD if _is_card(match[0]) else Reason.LONG_NUMBER
    return None


def _is_address(candidate: str) -> bool:
    if candidate.count(":") < 2:
        return False
    try:
        ipaddress.IPv6Address(candidate)
    except ValueError:
        return False
    return True


def _is_card(candidate: str) -> bool:
    """Whether 13 to 19 digits satisfy Luhn's check (ISO/IEC 7812-1)."""
    digits = [int(character) for character in candidate if character.isdigit()]
    if not 13 <= len(digits) <= 19:
        return False
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(candidate: str) -> bool:
    """Whether a prefix of it satisfies the check of ISO 13616: letters as numbers, remainder 1 by 97."""
    packed = "".join(filter(str.isalnum, candidate)).upper()
    return any(
        int("".join(str(int(character, 36)) for character in packed[4:end] + packed[:4])) % 97 == 1
        for end in range(15, min(len(packed), 34) + 1)
    )
