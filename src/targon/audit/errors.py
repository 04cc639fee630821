"""The errors of the audit room. What an audit finds is no error: it is a fault, and stands in its report.

AuditError
├── ExportRefused    segments that cannot be written as they should be: those that lie there are another log's
└── Unreadable       what is to be audited cannot be read, or goes beyond every bound
"""

from __future__ import annotations


class AuditError(Exception):
    """Anything that keeps a log from being exported or audited."""


class ExportRefused(AuditError):
    """Segments that lie where others are to be written are of another log, or damaged."""


class Unreadable(AuditError):
    """What is to be audited cannot be read: nothing is there, or what is there goes beyond every bound."""
