"""The line between a gateway that faces users and the verifier that fulfils their orders, as two processes.

A Unix socket that only its owner can reach: who faces users holds no hotkey, and no log. Each order has a connection
of its own while it runs, so that the kernel holds back whoever is faster, and hanging up is closing it; connections are
used again for later orders. The line must never change what is said on it, and must never wait for a process that is
gone.
"""

from targon.gateway.line.client import LineClient
from targon.gateway.line.server import LineServer
from targon.gateway.line.socket import LineTaken

__all__ = ["LineClient", "LineServer", "LineTaken"]
