"""The socket of the line: a file that only its owner can reach."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BACKLOG = 1024


class LineTaken(Exception):
    """The socket can't be ours: somebody answers there, or others could reach it."""


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listening socket (0600, in a folder of 0700, made where it doesn't exist); gone when the block ends.

    Raises:
        LineTaken: naming what is wrong and what to do.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_folder(path.parent)
    _refuse_if_served(path)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            raise LineTaken(
                f"socket {path}: cannot listen there ({error}); name another path, at most 100 characters long"
            ) from error
        inode = path.stat().st_ino
        try:
            yield listener
        finally:
            if path.exists() and path.stat().st_ino == inode:
                path.unlink()


def check_folder(folder: Path) -> None:
    """Check that nobody else can put a socket of his own there, or reach ours.

    Raises:
        LineTaken: if somebody can.
        OSError: if it can't be looked at.
    """
    kept = folder.stat()
    if kept.st_uid != os.geteuid():
        raise LineTaken(
            f"socket folder {folder}: got a folder of user {kept.st_uid}, expected one of user {os.geteuid()}, "
            "who runs this (its owner could read what users ask, and send inferences in our name); name a socket in "
            "another folder"
        )
    mode = kept.st_mode & 0o777
    if mode & 0o077:
        raise LineTaken(
            f"socket folder {folder}: got mode {mode:04o}, expected 0700 (whoever enters it sends inferences in "
            f"our name); run `chmod 700 {folder}`, or name a socket in another folder"
        )


def _refuse_if_served(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_socket():
        raise LineTaken(f"socket {path}: got a file that is no socket, expected a free path; name another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise LineTaken(
                f"socket {path}: can't tell whether somebody answers there ({error}); stop who has it, or name another"
            ) from error
    raise LineTaken(f"socket {path}: another verifier answers there; stop it, or name another socket")
