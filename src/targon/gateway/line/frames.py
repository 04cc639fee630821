"""What is said on the line: frames of a length, a kind and JSON.

A frame is the length of its payload (4 bytes, big-endian), one byte for its kind, and the payload.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import TypeAdapter

from targon.gateway.errors import ServiceFailed
from targon.gateway.ports import Delta, Finished
from targon.protocol.messages import Message
from targon.transport.errands import (
    DeskError,
    FiledReceipt,
    NobodyFree,
    NotReady,
    OfferedModel,
    UnknownModel,
    Unservable,
)

HEAD_BYTES: Final = 5
MAX_FRAME_BYTES: Final = 1 << 26
"""More than the largest answer that a prover may give (32 MiB), as JSON in JSON."""
MAX_ORDER_BYTES: Final = 1 << 23
"""Of an order. Provers take requests of 1 MiB."""

# from the gateway
WATCH: Final = ord("W")
"""Say every ``BEAT_S`` that you are there, and what you serve."""
ORDER: Final = ord("O")
RECEIPT: Final = ord("R")
"""Of which a copy is wanted."""
# from the verifier
MODELS: Final = ord("m")
BEGAN: Final = ord("b")
DELTA: Final = ord("d")
FINISHED: Final = ord("f")
FAILED: Final = ord("e")
FILED: Final = ord("r")

BEAT_S: Final = 1.0

DELTAS = TypeAdapter(Delta)
FINISHES = TypeAdapter(Finished)
MODEL_LISTS = TypeAdapter(tuple[OfferedModel, ...])
FILED_RECEIPTS = TypeAdapter(FiledReceipt | None)


class Trouble(Message):
    """An error of the port, with its fields."""

    kind: Literal["NobodyFree", "UnknownModel", "Unservable", "NotReady", "ServiceFailed"]
    message: str = ""
    retry_after_s: float = 0.0
    model: str = ""
    models: tuple[str, ...] = ()
    parameter: str = ""
    code: str = ""
    begun: bool = False

    @classmethod
    def of(cls, error: DeskError | ServiceFailed) -> Trouble:
        """What is told of an error."""
        message = str(error)
        match error:
            case NobodyFree():
                return cls(kind="NobodyFree", message=message, retry_after_s=error.retry_after_s)
            case UnknownModel():
                return cls(kind="UnknownModel", model=error.model, models=error.models)
            case Unservable():
                return cls(kind="Unservable", message=message, parameter=error.parameter, code=error.code)
            case NotReady():
                return cls(kind="NotReady", message=message, retry_after_s=error.retry_after_s)
            case ServiceFailed():
                return cls(kind="ServiceFailed", message=message, begun=error.begun)
        raise TypeError(f"got {type(error).__name__}, expected an error that a user can be told of")

    def error(self) -> DeskError | ServiceFailed:
        """The error again."""
        match self.kind:
            case "NobodyFree":
                return NobodyFree(self.message, self.retry_after_s)
            case "UnknownModel":
                return UnknownModel(self.model, self.models)
            case "Unservable":
                return Unservable(self.parameter, self.code, self.message)
            case "NotReady":
                return NotReady(self.message, self.retry_after_s)
            case "ServiceFailed":
                return ServiceFailed(self.message, begun=self.begun)
