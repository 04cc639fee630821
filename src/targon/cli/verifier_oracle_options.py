"""The options of a verifier that say which oracles its private inputs come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from targon.cli.options import Options

if TYPE_CHECKING:
    from targon.protocol.primitives import Hotkey

MAX_ORACLES: Final = 16
"""As many as a log can name at once."""


@dataclass(frozen=True, slots=True)
class OracleAddress:
    """Where an oracle serves."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, url: str) -> OracleAddress:
        """Read ``https://HOST:PORT`` or ``http://HOST:PORT``.

        Raises:
            ValueError: if it is none of that form.
        """
        if not url.isascii():
            raise ValueError(f"got {url[:80]!r}, expected a host in ASCII letters (xn--…), if it is a name")
        wrong = ValueError(
            f"got {url[:80]!r}, expected https://HOST:PORT (or http://, which doesn't encrypt)"
        )
        try:
            split = urlsplit(url)
            host, port = split.hostname, split.port
        except ValueError:
            raise wrong from None
        more = split.path.rstrip("/") or split.query or split.fragment or split.username
        if split.scheme not in ("http", "https") or not host or more or port == 0:
            raise wrong
        return cls(host, port or (443 if split.scheme == "https" else 80), split.scheme == "https")


class VerifierOracleOptions(Options):
    """The oracles that private inputs come from; without any, the verifier's own source."""

    url: str = ""
    """Address of an oracle, https://HOST:PORT; several, with commas between them, in order of preference."""
    hotkey: str = Field("", validate_default=True)
    """Hotkey of the oracle at each address, in the same order: what it signs is held against it."""
    agreeing: int = Field(0, ge=0, le=MAX_ORACLES)
    """How many of the oracles have to agree on what their engines say (--neuron.light); 0: more than half of them."""
    pardon: str = ""
    """Hotkeys of oracles that were caught at something, with commas between them, to use again all the same."""

    @field_validator("url")
    @classmethod
    def _addresses(cls, value: str) -> str:
        addresses = [OracleAddress.parse(url) for url in _listed(value)]
        if len({(address.host, address.port) for address in addresses}) != len(addresses):
            raise ValueError("expected each address once: one oracle agrees with itself")
        return value

    @field_validator("hotkey")
    @classmethod
    def _as_many(cls, value: str, info: ValidationInfo) -> str:
        hotkeys, urls = _hotkeys(value), len(_listed(info.data.get("url", "")))
        if len(hotkeys) != urls and "url" in info.data:
            raise ValueError(
                f"expected {urls} of them, one for each address of --oracle.url, as its operator tells it"
            )
        if len(set(hotkeys)) != len(hotkeys) or len(hotkeys) > MAX_ORACLES:
            raise ValueError(f"expected each hotkey once, and at most {MAX_ORACLES}")
        return value

    @field_validator("agreeing")
    @classmethod
    def _so_many(cls, value: int, info: ValidationInfo) -> int:
        count = len(_listed(info.data.get("url", "")))
        if value > count:
            raise ValueError(f"expected at most {count}, as many as --oracle.url names")
        return value

    @field_validator("pardon")
    @classmethod
    def _pardoned(cls, value: str) -> str:
        _hotkeys(value)
        return value

    @property
    def named(self) -> list[tuple[Hotkey, OracleAddress]]:
        """Each oracle with its address, in order of preference."""
        addresses = [OracleAddress.parse(url) for url in _listed(self.url)]
        return list(zip(_hotkeys(self.hotkey), addresses, strict=True))

    @property
    def needed(self) -> int:
        """How many have to agree: what was given, or more than half."""
        return self.agreeing or len(self.named) // 2 + 1

    @property
    def pardoned(self) -> frozenset[Hotkey]:
        return frozenset(_hotkeys(self.pardon))


def _listed(value: str) -> list[str]:
    return [each.strip() for each in value.split(",") if each.strip()]


def _hotkeys(value: str) -> list[Hotkey]:
    listed = _listed(value)
    if not listed:
        return []
    from targon.protocol.errors import MalformedMessage  # here, so that --help needs no numpy
    from targon.protocol.keys import public_key
    from targon.protocol.primitives import Hotkey

    found = [Hotkey(each) for each in listed]
    for hotkey in found:
        try:
            public_key(hotkey)
        except MalformedMessage as error:
            raise ValueError(str(error)) from error
    return found
