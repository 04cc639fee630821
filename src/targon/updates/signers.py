"""The file of keys that may sign releases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from targon.updates.errors import BadUpdateSettings


@dataclass(frozen=True)
class Signers:
    """A file of allowed signers that can be read and names somebody."""

    path: Path

    @classmethod
    def read(cls, path: Path | None) -> Signers:
        """See that there is such a file. It may change while we run.

        Raises:
            BadUpdateSettings: if there is none, or nobody in it.
        """
        if path is None:
            raise BadUpdateSettings(
                "--autoupdate.allowed_signers is missing: expected a file of the keys that may sign releases, or a pin"
            )
        path = path.expanduser().absolute()
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadUpdateSettings(
                f"--autoupdate.allowed_signers: {path} can't be read ({error})"
            ) from error
        if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
            raise BadUpdateSettings(
                f"--autoupdate.allowed_signers: got no key in {path}, expected lines like: NAME ssh-ed25519 AAAA…"
            )
        return cls(path)
