"""Addresses: one form for each page, and which lead into traps."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit, urlunsplit

from targon.oracle.sources.live.limits import LIVE_LIMITS, LiveLimits

_PORTS: Final = {"http": 80, "https": 443}
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_SAFE_IN_PATH: Final = "/:@!$&'()*+,;=~-._"
_SAFE_IN_QUERY: Final = _SAFE_IN_PATH + "%?"
_SESSION: Final = re.compile(r";(?:jsessionid|phpsessid|sid)=[^/;]*", re.IGNORECASE)
_NO_PAGE: Final = re.compile(
    r"utm_.*|fbclid|gclid|dclid|msclkid|mc_[ce]id|igshid|ref|ref_src|source|sid|session_?id|phpsessid|jsessionid"
    r"|cfid|cftoken|share|replytocom|print",
    re.IGNORECASE,
)
"""Names in a query that make no other page of it."""
_DIGITS: Final = re.compile(r"\d+")
_MEDIA: Final = re.compile(
    r"\.(?:jpe?g|png|gif|svg|webp|avif|ico|css|js|json|xml|rss|atom|pdf|zip|gz|bz2|xz|7z|rar|tar|tgz|exe|dmg|iso|apk"
    r"|mp[34]|m4[av]|ogg|oga|ogv|wav|flac|avi|mov|mkv|webm|woff2?|ttf|docx?|xlsx?|pptx?|csv|epub|torrent)$",
    re.IGNORECASE,
)


def normalised(url: str, base: str = "") -> str | None:
    """An address in the one form that we know it by; None where it is none of a page of http or https.

    Names are in lower case, usual ports, fragments, sessions and what only counts visitors are left out, dots in paths
    are resolved, queries sorted, and all else is escaped in one way.
    """
    try:
        parts = urlsplit(urljoin(base, "".join(url.split())))
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
        return None
    name = _named(host)
    if name is None:
        return None
    netloc = name if port in {None, _PORTS[parts.scheme]} else f"{name}:{port}"
    try:
        return urlunsplit((parts.scheme, netloc, _path(parts.path), _query(parts.query), ""))
    except UnicodeError:
        return None


def _path(path: str) -> str:
    path = quote(unquote_to_bytes(_SESSION.sub("", path)), _SAFE_IN_PATH) or "/"
    ends = "/" if path.endswith(("/", "/.", "/..")) else ""
    path = "/" + posixpath.normpath(path).strip("/")
    return path if path == "/" else path + ends


def _query(query: str) -> str:
    pairs = query.split("&")
    asked = (pair for pair in pairs if pair and not _NO_PAGE.fullmatch(pair.partition("=")[0]))
    return "&".join(sorted(quote(pair, _SAFE_IN_QUERY) for pair in asked))


def _named(host: str) -> str | None:
    host = host.rstrip(".").lower()
    if ":" in host:
        return None  # an address of IPv6; hosts that people read have names
    try:
        host = host.encode("idna").decode("ascii") if not host.isascii() else host
    except UnicodeError:
        return None
    return host if len(host) <= 253 and _NAME.fullmatch(host) else None


def authority(url: str) -> str:
    """Host and port of a normalised address, without the port where it is the usual one."""
    return urlsplit(url).netloc


def host_of(url: str) -> str:
    """Host of a normalised address, without its port."""
    return urlsplit(url).hostname or ""


def origin(url: str) -> str:
    """What a robots.txt holds for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def shape(url: str) -> str:
    """What is left of an address without its digits; a calendar's pages are all of one shape."""
    parts = urlsplit(url)
    return _DIGITS.sub("0", f"{parts.netloc}{parts.path}?{parts.query}")


def trap(url: str, limits: LiveLimits = LIVE_LIMITS) -> str | None:
    """Why a normalised address isn't worth a fetch, by itself; None where it may be."""
    parts = urlsplit(url)
    steps = [step for step in parts.path.split("/") if step]
    if len(url) > limits.url_chars:
        return "long"
    if len(steps) > limits.path_parts or any(count > limits.same_part for count in Counter(steps).values()):
        return "deep"
    if parts.query.count("&") >= limits.query_parts:
        return "query"
    return "media" if _MEDIA.search(parts.path) else None
