"""Write what the tests need of TGI's OpenAPI document: routes, fields, types, bounds and examples, without its words.

    python scripts/tgi_schemas.py PATH/TO/openapi.json > tests/engines/remote/tgi/schemas.json

The document is that of https://github.com/huggingface/text-generation-inference (docs/openapi.json), the answers in
tests/engines/remote/tgi/answers are those recorded in its integration tests; both are under the Apache License 2.0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROUTES = ("/generate", "/generate_stream", "/info", "/health", "/tokenize", "/chat_tokenize")
WORDS = frozenset({"description", "summary", "title", "tags", "operationId"})


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write(f"{__doc__}")
        return 2
    document = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    paths = {route: _without_words(document["paths"][route]) for route in ROUTES}
    schemas = {name: _without_words(one) for name, one in document["components"]["schemas"].items()}
    needed, waiting = {}, [paths]
    while waiting:
        for name in _references(waiting.pop()):
            if name not in needed:
                needed[name] = schemas[name]
                waiting.append(schemas[name])
    whole = {"paths": paths, "components": {"schemas": dict(sorted(needed.items()))}}
    sys.stdout.write(json.dumps(whole, indent=1) + "\n")
    return 0


def _without_words(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _without_words(one) for key, one in value.items() if not _is_words(key, one)}
    return [_without_words(one) for one in value] if isinstance(value, list) else value


def _is_words(key: str, value: object) -> bool:
    """A property may be named like one of the words; then its value is a schema."""
    return key in WORDS and not isinstance(value, dict)


def _references(value: Any) -> list[str]:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        own = [value["$ref"].rsplit("/", 1)[-1]] if isinstance(value.get("$ref"), str) else []
        return own + [name for one in value.values() for name in _references(one)]
    return [name for one in value for name in _references(one)] if isinstance(value, list) else []


if __name__ == "__main__":
    sys.exit(main())
