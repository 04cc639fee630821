"""``GET /v1/segments/…``: what a verifier publishes of its log, to anyone; files of a folder, and nothing else.

The names that are served are those that segments have. Parts of a file may be asked for (``Range``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from targon.protocol.segments import INDEX

PREFIX: Final = "/v1/segments"

_NAME: Final = re.compile(r"segment-[0-9]{8}\.jsonl?|transcripts-[0-9]{8}\.jsonl")
_TYPES: Final = {".json": "application/json", ".jsonl": "application/x-ndjson"}


def segment_routes(folder: Path) -> list[Route]:
    """The routes that serve a folder of segments.

    Those that are written do not change, and may be kept; the index does, and the newest segment is not there until
    it is whole.
    """

    async def serve(request: Request) -> Response:
        name = request.path_params["name"]
        if name != INDEX and not _NAME.fullmatch(name):
            raise HTTPException(404)
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise HTTPException(404)
        cached = "no-cache" if name == INDEX else "public, max-age=31536000, immutable"
        return FileResponse(path, media_type=_TYPES[path.suffix], headers={"cache-control": cached})

    return [Route(PREFIX + "/{name}", serve, methods=["GET", "HEAD"])]


class SegmentFiles:
    """The same as an ASGI application of its own, behind :data:`PREFIX`."""

    def __init__(self, folder: Path) -> None:
        from starlette.applications import Starlette

        self._app = Starlette(routes=segment_routes(folder))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
