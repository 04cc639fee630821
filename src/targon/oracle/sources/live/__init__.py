"""A live crawl: pages of hosts that an operator chose, fetched politely, as a source of texts that are new.

The settings are a TOML file (``settings.py`` has them all, ``docs/oracle.md`` an example). The crawler (``crawler.py``)
is a process of its own (``process.py``), which shares an SQLite file (``store.py``) with the source (``source.py``).
It never fetches from another host than those that are named, keeps to each host's robots.txt, and to a gap between two
fetches of a host.
"""

from targon.oracle.sources.live.source import LiveText

__all__ = ["LiveText"]
