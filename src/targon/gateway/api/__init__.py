"""The half of the gateway that faces users: OpenAI's API over HTTP, keys, limits, drain.

It knows no prover and no log: whatever is asked goes to an :class:`~targon.gateway.ports.Orders`, in this process or
behind a socket.
"""

from targon.gateway.api.front import Door, Front, FrontSettings, is_loopback
from targon.gateway.api.handler import Bounds

__all__ = ["Bounds", "Door", "Front", "FrontSettings", "is_loopback"]
