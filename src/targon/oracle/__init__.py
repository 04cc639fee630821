"""The oracle: where private inputs come from.

A private input is a passage of text that the model is asked about; each challenge has one of its own. The
room's job is to have many of them, to give each with the place it was taken from, and to follow a draw: it
must never choose by itself (who could choose could also favour), and never change a passage once it was given
out under a digest.

For now it holds one source, embedded in every verifier: the documentation of Python's standard library.
"""

from targon.oracle.errors import NoText, OracleError, PassagesExhausted
from targon.oracle.passage import Passage
from targon.oracle.sources.standard_library import StandardLibraryText

__all__ = ["NoText", "OracleError", "Passage", "PassagesExhausted", "StandardLibraryText"]
