"""The matrix as one page that needs nothing else: no network, no other file."""

from __future__ import annotations

import json
from importlib import resources

from targon.redteam.matrix import Matrix

_PLACE = "/*MATRIX*/"


def page_of(matrix: Matrix) -> str:
    """A self-contained HTML page. All that came from elsewhere is put in as data, never as markup."""
    template = resources.files("targon.redteam").joinpath("page.html").read_text("utf-8")
    data = json.dumps(matrix.to_json(), ensure_ascii=True).replace("<", "\\u003c")
    return template.replace(_PLACE, data)
