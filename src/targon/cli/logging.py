"""Log lines on standard error: for people, or as JSON for machines.

Our own lines and, where they are asked for, those of libraries have one form. What is secret, or long enough to be a
signature or a body, is taken out of every one of them before it is written.
"""

from __future__ import annotations

import logging
import re
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

NOT_LOGGED = "(not logged)"

CARRIERS = ("bittensor.transport.raw_websocket", "hpack", "httpcore", "httpcore2", "redis", "websockets")
"""Libraries that log, to be debugged with, whole messages and headers. They stay quiet at any level."""

LONGEST = 2_000
"""Characters of a text in a line; a body that somebody logs is cut off there."""

_NAMES = r"authorization|cookie|signature|password|passphrase|secret|mnemonic|private[-_]?key|api[-_]?key"
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_NAMED = re.compile(
    rf"""((?:{_NAMES})["']?\s*[:=]\s*|--[\w.]*(?:{_NAMES})\s+)(?:b?"[^"]*"|b?'[^']*'|(?:(?:bearer|basic|token)\s+)?[^\s"',;)}}\]]+)""",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")
_LONG_CODE = re.compile(r"\b(?:0x)?[0-9a-fA-F]{128,}\b|[A-Za-z0-9+/]{86,}={0,2}|\btg-[A-Za-z0-9_-]{43}")
"""64 bytes or more, in hex or base64: signatures and private keys, no digests. Or a gateway's API key."""


def configure_logging(
    *, debug: bool = False, trace: bool = False, json_lines: bool = False, neuron: str = ""
) -> None:
    """Set up logging for this process.

    Args:
        debug: each step.
        trace: that, each request, and what libraries log to be debugged with.
        neuron: what this process is called, in each line.
    """
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )

    def name_neuron(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if neuron:
            event.setdefault("neuron", neuron)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        name_neuron,
        without_secrets,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if debug or trace else logging.INFO
        ),
        # Looked up each time: standard error may be another one by then.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard library; their warnings are worth seeing, their chatter isn't.
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [old for old in root.handlers if not isinstance(old, _StandardError)] + [handler]
    root.setLevel(logging.DEBUG if trace else logging.WARNING)
    for name in CARRIERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def without_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A processor: what has a secret's name is left out, and so is what looks like one within a text."""
    for name, value in event.items():
        if _SECRET_NAME.search(name):
            event[name] = NOT_LOGGED
        elif isinstance(value, bytes):
            event[name] = f"({len(value)} bytes, not logged)"
        elif isinstance(value, str):
            event[name] = _scrubbed(value)
    return event


def _scrubbed(text: str) -> str:
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}... ({len(text)} characters)"
    text = _NAMED.sub(rf"\1{NOT_LOGGED}", text)
    text = _CREDENTIALS.sub(NOT_LOGGED, text)
    return _LONG_CODE.sub(NOT_LOGGED, text)


class _StandardError(logging.Handler):
    """Writes to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except ValueError:  # it is closed: the process is ending
            self.handleError(record)
