"""What went wrong between this software and Redis, in words for the person who meets it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - the library's name
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - the library's name
)

from targon.ledger.redis.address import RedisAddress


class Cure(Enum):
    """What helps."""

    WAIT = auto()
    """Time: the server is there, and will answer soon."""
    RETRY = auto()
    """Time, if the server was there before."""
    NONE = auto()
    """Nothing but a person."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why Redis gave no answer that can be used."""

    problem: str
    cure: Cure


_PASSING: Final = ("MISCONF", "READONLY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED")
"""Refusals that end without anybody changing the configuration: a full disk, a failover."""


def explain(error: RedisError | OSError, address: RedisAddress) -> Failure:
    """What an error of the client means; the password never stands in it."""
    failure = _explain(error, address)
    if address.password and address.password in failure.problem:
        return Failure(failure.problem.replace(address.password, "…"), failure.cure)
    return failure


def _explain(error: RedisError | OSError, address: RedisAddress) -> Failure:
    if isinstance(error, BusyLoadingError):
        return Failure(f"Redis is loading its data ({error})", Cure.WAIT)
    if isinstance(error, AuthenticationError):
        return Failure(_about_the_password(error, address), Cure.NONE)
    for cause in _causes(error):
        if isinstance(cause, FileNotFoundError | PermissionError) and address.ca_file is not None:
            return Failure(f"cannot read {address.ca_file} ({cause}): check --database.ca_file", Cure.NONE)
        if isinstance(cause, ssl.SSLError):
            return Failure(_about_tls(cause, address), Cure.NONE)
        if isinstance(cause, socket.gaierror):
            problem = f"got the host {address.host!r}, which has no address ({cause}): check --database.host"
            return Failure(problem, Cure.RETRY)
    if isinstance(error, InvalidResponse):
        return Failure(
            f"what answers does not speak Redis in the clear ({error}): check --database.port, "
            "and give --database.tls if the server expects TLS",
            Cure.NONE,
        )
    if isinstance(error, TimeoutError):
        hint = ", or does it not speak TLS (--database.tls)" if address.tls else ""
        return Failure(f"got no answer in time ({error}): is Redis overloaded{hint}?", Cure.RETRY)
    if isinstance(error, ConnectionError | OSError):
        ended = isinstance(error, ConnectionError) and "closed" in str(error)
        hint = ", and whether it expects TLS (--database.tls)" if ended and not address.tls else ""
        return Failure(
            f"no connection ({error}): is Redis running there? Check --database.host and --database.port{hint}",
            Cure.RETRY,
        )
    return _refusal(error)


def _refusal(error: RedisError) -> Failure:
    if isinstance(error, NoPermissionError):
        problem = f"the user may not do this ({error}): see the page on Redis for what a log's user needs"
        return Failure(problem, Cure.NONE)
    text = str(error)  # of a script, it begins with where in it
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in text:
        return Failure(f"Redis is full ({text}): raise its maxmemory", Cure.NONE)
    if "WRONGTYPE" in text:
        return Failure(
            f"a key of the log holds something else ({text}): is this a log's database?", Cure.NONE
        )
    if isinstance(error, ResponseError) and "DB index is out of range" in text:
        return Failure(f"the server has no such database ({text}): check --database.index", Cure.NONE)
    passing = isinstance(error, ReadOnlyError) or any(word in text for word in _PASSING)
    return Failure(f"Redis refuses: {text}", Cure.RETRY if passing else Cure.NONE)


def _about_the_password(error: AuthenticationError, address: RedisAddress) -> str:
    if "without any password configured" in str(error):
        return "got a password, expected none: the server asks for none; leave out --database.password"
    if address.password:
        return "the server does not take the password: got a wrong one; check --database.password"
    return "the server asks for a password, got none: give it with --database.password"


def _about_tls(error: ssl.SSLError, address: RedisAddress) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"got a certificate that cannot be trusted ({error.verify_message}), expected one for "
            f"{address.host!r} from a known authority: name the authority's file with --database.ca_file"
        )
    if address.ca_file is not None and error.library in {"PEM", "X509"}:
        return f"{address.ca_file} holds no certificates ({error.reason}): check --database.ca_file"
    return (
        f"got no TLS from the server ({error.reason or error}): leave out --database.tls if it speaks in "
        "the clear, or check --database.port"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
