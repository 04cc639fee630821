"""Every message that the page on troubleshooting quotes is one that the software can say."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
GAP = "…"
"""What stands on the page, and here, for what differs."""


def quoted() -> list[str]:
    """The messages of the page: its headings that are code."""
    return re.findall(r"^### `(.+)`$", PAGE.read_text("utf-8"), re.MULTILINE)


@cache
def sayings() -> tuple[str, ...]:
    """Every text in the source, with a gap for each value that is put in."""
    texts = [(ROOT / "scripts" / "setup.sh").read_text("utf-8").replace("${old:-no Python}", "no Python")]
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
                texts.append("".join(map(str, parts)))
    return tuple(texts)


def said(message: str) -> bool:
    """Whether the words between the gaps stand in one text, in this order."""
    words = [word for word in message.split(GAP) if word]
    pattern = re.compile(".*?".join(map(re.escape, words)), re.DOTALL)
    return any(pattern.search(text) for text in sayings())


def test_the_page_quotes_messages() -> None:
    assert len(quoted()) > 25
    assert len(set(quoted())) == len(quoted())


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_that_the_software_says(message: str) -> None:
    assert max(len(word) for word in message.split(GAP)) >= 10, "too little to be found by"
    assert said(message)


def test_a_message_that_nobody_says_would_be_seen() -> None:
    assert not said("the hotkey file … is fine")
    assert not said("cannot be read … the hotkey file")
