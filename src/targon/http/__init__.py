"""HTTP as a client, with nothing of neurons or engines in it: connections that are kept and used again, and answers
that are read under deadlines. What a request says, and what an answer may be, is for those who ask.
"""

from targon.http.pool import Broken, Connection, Key, Malformed, Pool

__all__ = ["Broken", "Connection", "Key", "Malformed", "Pool"]
