"""The oracle: where private inputs come from.

A private input is a passage of text that the model is asked about; each challenge has one of its own. The
room's job is to have many of them, to give each with the place it was taken from, and to follow a draw: it
must never choose by itself (who could choose could also favour), and never change a passage once it was given
out under a digest.

One source is embedded in every verifier: the documentation of Python's standard library; others are read from files,
here or on web servers (``sources``). ``supply`` gives the passages of any source, each once, as ``refining`` finds them
fit.
"""

from targon.oracle.errors import (
    NoText,
    NothingReadable,
    OracleError,
    PassagesExhausted,
    SourceError,
    ToolMissing,
    UnknownSource,
)
from targon.oracle.passage import Passage
from targon.oracle.sources.opening import open_source
from targon.oracle.sources.standard_library import StandardLibraryText

__all__ = [
    "NoText",
    "NothingReadable",
    "OracleError",
    "Passage",
    "PassagesExhausted",
    "SourceError",
    "StandardLibraryText",
    "ToolMissing",
    "UnknownSource",
    "open_source",
]
