"""What an operator says of a live crawl: a TOML file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from targon.oracle.errors import SourceError
from targon.oracle.sources.live.urls import authority, host_of, normalised

_CONTACT: Final = re.compile(r"[!-~]+@[!-~]+\.[!-~]+|https?://[!-~]+")


class LiveSettings(BaseModel):
    """The settings of a live crawl."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contact: Annotated[str, Field(max_length=200)]
    """An e-mail address or a page by which those whose hosts are crawled reach you. Every request names it."""
    hosts: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    """All that is ever fetched from: names as in addresses, with a port where it isn't the usual one."""
    seeds: Annotated[tuple[str, ...], Field(min_length=1, max_length=1_000)]
    """Addresses to begin at, on those hosts; they are looked at again and again."""
    state: str = ""
    """The crawl's file, beside the settings; by default it has their name, with ``.sqlite``."""
    least_seconds: Annotated[float, Field(gt=0, le=3_600)] = 10.0
    """Between the end of a fetch from a host and the next; a ``Crawl-delay`` that asks for more is honoured."""
    pages_per_day: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Of each host, by days of UTC."""
    depth: Annotated[int, Field(ge=0, le=10)] = 2
    """Links from a seed."""
    revisit_minutes: Annotated[float, Field(gt=0, le=100_000)] = 60.0
    """After which a seed is looked at again, for new links."""
    fresh_days: Annotated[float, Field(gt=0, le=365)] = 3.0
    """After which a text that wasn't used is forgotten."""
    keep_pages: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Texts that wait to be drawn, at most."""

    @field_validator("contact")
    @classmethod
    def _reachable(cls, contact: str) -> str:
        if not _CONTACT.fullmatch(contact):
            raise ValueError(f"got {contact!r}, expected an e-mail address or an address of http or https")
        return contact

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if (url := normalised(f"http://{host}/")) is None or authority(url) != host:
                raise ValueError(
                    f"got {host!r}, expected a host's name in lower case, as it stands in addresses"
                )
        return tuple(sorted(set(hosts)))

    @model_validator(mode="after")
    def _seeds_are_allowed(self) -> Self:
        for seed in self.seeds:
            if (url := normalised(seed)) is None or authority(url) not in self.hosts:
                raise ValueError(
                    f"seeds: got {seed!r}, expected an address of http or https on one of the hosts"
                )
        return self

    @property
    def starts(self) -> tuple[str, ...]:
        """The seeds, normalised, each once."""
        return tuple(dict.fromkeys(url for seed in self.seeds if (url := normalised(seed)) is not None))

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts without ports: what is fetched from at most once at a time."""
        return tuple(sorted({host_of(f"http://{host}/") for host in self.hosts}))


def read_settings(path: Path) -> LiveSettings:
    """Settings from their file.

    Raises:
        SourceError: if it can't be read, or a setting isn't fit; which is said.
    """
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        return LiveSettings.model_validate(found)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SourceError(f"{path}: can't be read as settings of a live crawl: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}" for fault in error.errors()
        )
        raise SourceError(f"{path}: {faults}") from error


def state_path(path: Path, settings: LiveSettings) -> Path:
    """Where the crawl's state lies."""
    return path.parent / settings.state if settings.state else path.with_suffix(".sqlite")
