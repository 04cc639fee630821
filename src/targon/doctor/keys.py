"""The keys: the hotkey is there, opens, and is nobody else's to read; the coldkey is elsewhere."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from bittensor.keyfiles import Keyfile, KeyfileError, Keypair

from targon.doctor.findings import Result, bad, good, note

PASSWORD = "TARGON_WALLET_PASSWORD"  # noqa: S105 - the name of a variable
"""The variable of the environment that holds the password of a hotkey, for those that have one."""

OTHERS = 0o077
"""The bits of a file's mode that let anybody but its owner in."""


@dataclass(frozen=True, slots=True)
class WalletPlace:
    """Which keys, and where they lie."""

    name: str
    hotkey: str
    folder: Path
    """Holds the wallets."""
    password: str | None = None
    """Of the hotkey, if it has one."""

    @property
    def wallet(self) -> Path:
        return self.folder.expanduser() / self.name

    @property
    def hotkey_file(self) -> Path:
        return self.wallet / "hotkeys" / self.hotkey

    def making(self, hotkey: str | None = None) -> str:
        """The command that makes a hotkey."""
        words = ("--wallet.name", self.name, "--wallet.hotkey", hotkey or self.hotkey)
        return f"targon wallet create {shlex.join(words)} --wallet.path {shlex.quote(str(self.folder))}"


def check_hotkey(place: WalletPlace) -> Result:
    """Hands on the hotkey's pair of keys. Blocks: opening an encrypted one takes a moment by design."""
    path, keyfile = place.hotkey_file, Keyfile(place.hotkey_file)
    if not place.wallet.is_dir():
        return bad(f"there is no wallet {place.name!r} at {place.wallet}", place.making())
    if not path.is_file():
        return bad(f"wallet {place.name!r} has no hotkey {place.hotkey!r}: no file {path}", place.making())
    try:
        encrypted = keyfile.is_encrypted()
        if encrypted and not place.password:
            return bad(
                f"{path} is encrypted, and no password is given; a neuron runs unattended",
                f"put the password into {PASSWORD}, or make a hotkey without one and register it: "
                f"{place.making(f'{place.hotkey}-plain')}",
            )
        pair = keyfile.get_keypair(place.password if encrypted else None)
        pair.sign(b"")
    except PermissionError:
        return bad(
            f"{path} can't be read by this user",
            f"as its owner: chown it to this user, then chmod 600 {path}",
        )
    except (KeyfileError, ValueError) as error:
        if keyfile.is_encrypted():
            return bad(f"{path} doesn't open with the password in {PASSWORD}", f"correct {PASSWORD}")
        return bad(
            f"{path} can't be used: {error}", "restore it from a backup, or make it again from its mnemonic"
        )
    return _open_to_others(path, pair) or good(
        f"{pair.ss58_address} in {path}, {'opened with its password' if encrypted else 'without a password'}",
        value=pair,
    )


def _open_to_others(path: Path, pair: Keypair) -> Result | None:
    mode = path.stat().st_mode & 0o777
    if not mode & OTHERS:
        return None
    return bad(
        f"{path} has mode {mode:04o}, expected 0600: other users of this machine can get at the key",
        f"chmod 600 {path}",
        value=pair,
    )


def check_coldkey(place: WalletPlace) -> Result:
    """Its private key belongs on another machine: no neuron needs it."""
    path = place.wallet / "coldkey"
    if not path.exists():
        return good("its private key is not on this machine")
    how = "encrypted" if Keyfile(path).is_encrypted() else "NOT encrypted"
    return note(
        f"the coldkey's private key lies on this machine, {how}: {path}. No neuron needs it, and whoever gets it gets "
        "the funds",
        f"move it to a machine that serves nobody; leave {path.name}pub.txt here",
    )
