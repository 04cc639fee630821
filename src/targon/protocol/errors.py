"""The errors of the protocol room.

ProtocolError
├── MalformedMessage     bytes that are not the message they claim to be
├── UnsupportedSampling  sampling parameters that no rule covers; refused by name
├── InvalidLogits        numbers that no token can be drawn from
├── InvalidSignature     a signature that does not verify
├── FieldMismatch        something signed, of which a field is not what it should be
│   ├── PrivateInputMismatch what an oracle signed isn't what it committed to, or another's
│   ├── ReferenceMismatch    what an oracle signed for its engine, of another task, or for another verifier
│   ├── ReceiptMismatch      a genuine receipt for something else
│   ├── SegmentMismatch      a genuine manifest of another segment, or of another log
│   └── StatementMismatch    a hotkey's statement about a TLS key that is not the one wanted, or not valid now
└── VectorMismatch       an implementation that disagrees with a conformance vector
"""

from __future__ import annotations


class ProtocolError(Exception):
    """Anything that breaks a rule of the protocol."""


class MalformedMessage(ProtocolError):
    """Bytes that are not the message they claim to be."""


class UnsupportedSampling(ProtocolError):
    """Sampling parameters that the named dialect does not cover.

    Attributes:
        parameter: the name of the parameter as it stands on the wire.
        got: the value that was sent.
        expected: what the dialect allows, in words.
    """

    def __init__(self, parameter: str, got: object, expected: str) -> None:
        self.parameter = parameter
        self.got = got
        self.expected = expected
        super().__init__(f"sampling parameter {parameter!r}: got {got!r}, expected {expected}")


class InvalidLogits(ProtocolError, ValueError):
    """Logits or log-probabilities that no token can be drawn from: NaN, +∞, or all −∞."""


class InvalidSignature(ProtocolError):
    """A signature that does not verify against the hotkey that it names."""


class FieldMismatch(ProtocolError):
    """Something signed, of which a field is not what it should be.

    Attributes:
        field: which field differs.
        got: what it says.
        expected: what it should say.
    """

    def __init__(self, field: str, got: object, expected: object, message: str) -> None:
        self.field = field
        self.got = got
        self.expected = expected
        super().__init__(message)


class ReceiptMismatch(FieldMismatch):
    """A receipt, or what a verifier says of one, that is genuine but speaks of something else.

    Attributes:
        of: whose field it is: the ``receipt``'s, the ``countersignature``'s or the ``statement``'s.
    """

    def __init__(self, field: str, got: object, expected: object, *, of: str = "receipt") -> None:
        self.of = of
        super().__init__(field, got, expected, f"{of} {field}: got {got!r}, expected {expected!r}")


class PrivateInputMismatch(FieldMismatch):
    """A private input, or a commitment to some, that is another's, or isn't what was committed to.

    Attributes:
        of: whose field it is: the ``private input``'s or the ``commitment``'s.
    """

    def __init__(self, field: str, got: object, expected: object, *, of: str = "private input") -> None:
        self.of = of
        super().__init__(field, got, expected, f"{of}'s {field}: got {got!r}, expected {expected}")


class ReferenceMismatch(FieldMismatch):
    """What an oracle says for its engine, of something else than was asked, or to somebody else."""

    def __init__(self, field: str, got: object, expected: object) -> None:
        super().__init__(field, got, expected, f"reference's {field}: got {got!r}, expected {expected!r}")


class SegmentMismatch(FieldMismatch):
    """A segment's manifest that does not follow the one before it."""

    def __init__(self, field: str, got: object, expected: object) -> None:
        super().__init__(field, got, expected, f"segment's {field}: got {got!r}, expected {expected!r}")


class StatementMismatch(FieldMismatch):
    """A statement about a TLS key that is another hotkey's, or not valid now: of its ``hotkey``, ``not_before``,
    ``not_after`` or ``lifetime``."""

    def __init__(self, field: str, got: object, expected: object) -> None:
        super().__init__(field, got, expected, f"TLS key's {field}: got {got}, expected {expected}")


class VectorMismatch(ProtocolError):
    """A conformance vector that this implementation does not reproduce."""
