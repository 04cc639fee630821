"""What can go wrong in a gateway.

``GatewayError``
├── ``ServiceFailed``  an answer broke off, or was refused
├── ``KeyFileBroken``  the file of keys can't be read or written
├── ``NoSuchKey``      no key, or more than one, is meant
└── ``NotAllowed``     the gateway was told to do what would expose its users
"""

from __future__ import annotations


class GatewayError(Exception):
    """The root of this room's errors."""


class ServiceFailed(GatewayError):
    """No answer could be had, or one broke off, or was not what the prover signed.

    Attributes:
        begun: whether a part of the answer was given out, which is not to be used.
    """

    def __init__(self, message: str, *, begun: bool) -> None:
        self.begun = begun
        super().__init__(message)


class KeyFileBroken(GatewayError):
    """The file of keys can't be read or written."""


class NoSuchKey(GatewayError):
    """No key, or more than one, is meant."""


class NotAllowed(GatewayError):
    """The gateway was told to do what would expose its users."""
