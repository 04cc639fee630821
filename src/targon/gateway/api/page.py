"""The OpenAPI document as a page to read: plain HTML, which needs nothing from elsewhere and runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc } code { background: #f3f3f3; padding: 0 .2em }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .25rem .5rem;
border-bottom: 1px solid #e4e4e4 } .off { color: #8a8a8a }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd } code { background: #2a2a2a } }
"""


def document_page(document: Mapping[str, Any]) -> str:
    """The page."""
    info = document["info"]
    body = "".join(
        _operation(document, path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p>{_prose(info["description"])}</p><p>For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"{body}</html>"
    )


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p>{_prose(operation.get('description', ''))}</p>",
    ]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        parts.append(_table(document, content["schema"]))
    rows = "".join(
        f"<tr><td>{status}<td>{_prose(reply['description'])}"
        for status, reply in sorted(operation["responses"].items())
    )
    parts.append(f"<h3>Replies</h3><table><tr><th>status<th>{rows}</table>")
    return "".join(parts)


def _table(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    model = _resolved(document, schema)
    needed = model.get("required", [])
    rows = []
    for name, one in model["properties"].items():
        off = ' class="off"' if one.get("x-unsupported") else ""
        kinds = ", ".join(dict.fromkeys(_kinds(document, one)))
        mark = " (required)" if name in needed else ""
        rows.append(
            f"<tr{off}><td><code>{escape(name)}</code>{mark}<td>{escape(kinds)}<td>{_prose(one.get('description', ''))}"
        )
    return f"<h3>Body</h3><table><tr><th>parameter<th>accepts<th>{''.join(rows)}</table>"


def _kinds(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """What a value may be, in words."""
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        for branch in branches:
            yield from _kinds(document, branch)
    elif "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    elif "enum" in schema or "const" in schema:
        yield from (str(word) for word in schema.get("enum", [schema.get("const")]))
    elif schema.get("type") == "array":
        yield "array of " + " or ".join(dict.fromkeys(_kinds(document, schema.get("items", {}))))
    else:
        low, high = schema.get("minimum"), schema.get("maximum")
        bounds = f" {low if low is not None else ''} to {high if high is not None else ''}".rstrip()
        yield schema.get("type", "anything") + (bounds if (low, high) != (None, None) else "")


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _prose(text: str) -> str:
    """Text with its words in backquotes as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if place % 2 else piece for place, piece in enumerate(pieces))
