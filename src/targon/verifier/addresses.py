"""Where an oracle is: its operator names a host, and what is called are addresses."""

from __future__ import annotations

import ipaddress

import anyio

from targon.chain import Axon


async def address_of(host: str, port: int) -> Axon:
    """The address of a host. Names are looked up each time, so that a service may move.

    Raises:
        OSError: if the name leads nowhere.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = await anyio.getaddrinfo(host, port)
        return Axon(str(found[0][4][0]), port)
    return Axon(host, port)
