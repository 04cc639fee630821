"""How long anything takes at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Every limit in time of the adapter, in seconds."""

    connect_s: float = 20.0
    """To connect to one endpoint: the handshake (10 in the SDK) and, the first time, half a megabyte of metadata."""
    answer_s: float = 10.0
    """For one answer, after which the connection is taken for dead; a metagraph of 256 neurons takes about one."""
    read_s: float = 30.0
    """For a read, with reconnecting and trying again: one endpoint may hang and the next one still answer."""
    inclusion_s: float = 48.0
    """From sending a call to hearing of its block: four blocks of 12."""
    settling_s: float = 90.0
    """To find out what became of a call of which nothing was heard; then its caller is told, and may call again."""
    poll_s: float = 1.0
    """Between two looks at the chain."""
    silence_s: float = 60.0
    """Without a new block, after which a subscription is opened anew: five blocks of 12."""
    close_s: float = 5.0
    """To close a connection; the SDK was seen to hang there, and one that is left costs no more than a socket."""
    first_pause_s: float = 0.25
    """Before the second attempt to connect; doubles from one to the next."""
    most_pause_s: float = 8.0
    """Longest pause between two attempts to connect."""
