"""Signed HTTP between neurons: a client, the gate of a server, and what both hold each other to.

Every request is signed as btauth/1 says, by the sender's hotkey, for one receiver, one body and one moment.
This room decides who may speak and how much; it must never read what is said: what a request asks for is
its handler's business, what an answer is worth is the verifier's. It never waits for the chain, never logs
content or signatures, and listens on nothing that it was not told to.
"""

from targon.transport.answers import Answer, Deadlines, Timing
from targon.transport.body import while_connected
from targon.transport.client import NeuronClient
from targon.transport.clock import Clock
from targon.transport.errors import (
    BadResponse,
    Disconnected,
    Endpoint,
    LocalFault,
    NotTheProver,
    PortInUse,
    Refused,
    TimedOut,
    TransportError,
    Unreachable,
)
from targon.transport.gate import Gate, Handler, OpenRequest, OpenRoute, Policy, Route, SignedRequest
from targon.transport.limits import Allowance, Limits
from targon.transport.nonces import MemoryNonceStore, NonceStore
from targon.transport.operations import operations_app
from targon.transport.oracles import OracleClient
from targon.transport.refusals import STATUS, ClientGone, Code, Refusal
from targon.transport.replies import EventStream, send_json, send_lines
from targon.transport.serving import bind, bound_port, serve
from targon.transport.tls import ServerTls, Tls, speaks_tls

__all__ = [
    "STATUS",
    "Allowance",
    "Answer",
    "BadResponse",
    "ClientGone",
    "Clock",
    "Code",
    "Deadlines",
    "Disconnected",
    "Endpoint",
    "EventStream",
    "Gate",
    "Handler",
    "Limits",
    "LocalFault",
    "MemoryNonceStore",
    "NeuronClient",
    "NonceStore",
    "NotTheProver",
    "OpenRequest",
    "OpenRoute",
    "OracleClient",
    "Policy",
    "PortInUse",
    "Refusal",
    "Refused",
    "Route",
    "ServerTls",
    "SignedRequest",
    "TimedOut",
    "Timing",
    "Tls",
    "TransportError",
    "Unreachable",
    "bind",
    "bound_port",
    "operations_app",
    "send_json",
    "send_lines",
    "serve",
    "speaks_tls",
    "while_connected",
]
