"""Bittensor's public networks, by what can't be mistaken: the hash of block 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from targon.protocol.primitives import Digest

PUBLIC_NETWORKS: Final[Mapping[str, Digest]] = {
    "finney": Digest("2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03"),
    "test": Digest("8f9cf856bf558a14440e75569c9e58594757048d7b3a84b5d25f6bd978263105"),
}
"""Genesis by name. A local network has a genesis of its own."""
