"""The public audit: a verifier's log as signed segments, and everything that they say computed again.

What a verifier publishes is read as a stranger's: each line's hash, each segment's manifest, every tier, score and
weight, every draw. This room must never trust a number that it can compute, never keep a whole log in memory, and never
write to the log or the chain that it looks at.
"""

from targon.audit.errors import AuditError, ExportRefused, Unreadable
from targon.audit.exporting import Exporter, Transcripts

__all__ = ["AuditError", "ExportRefused", "Exporter", "Transcripts", "Unreadable"]
