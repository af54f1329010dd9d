"""The Engine API's specification, as data to hold answers against."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema

DATA = Path(__file__).resolve().parents[2] / "api" / "data" / "engine-api-1.50.json"


class Specification:
    """Operations (``GET /version``) and the schemas of what they answer."""

    def __init__(self, path: Path = DATA) -> None:
        whole = json.loads(path.read_text())
        self.operations: dict[str, dict[str, Any]] = whole["operations"]
        self.definitions: dict[str, Any] = whole["definitions"]
        self._definitions = {name: _modern(d) for name, d in whole["definitions"].items()}

    def faults(self, operation: str, status: int, answer: Any) -> list[str]:
        """What is wrong with an answer, one sentence each; empty if nothing is.

        Args:
            operation: Method and path as the specification writes them.
            status: Of the answer; one that the specification has not is a fault, too.
            answer: Its body's JSON.
        """
        responses = self.operations[operation]["responses"]
        if str(status) not in responses:
            return [f"{operation}: status {status} is not among {', '.join(responses)}"]
        schema = responses[str(status)]
        if schema is None:
            return []
        root = {**_modern(schema), "definitions": self._definitions}
        return [
            f"{operation}: {_place(fault.absolute_path)}: {fault.message[:200]}"
            for fault in jsonschema.Draft7Validator(root).iter_errors(answer)
        ]


def _place(path: Iterable[str | int]) -> str:
    """``HostConfig.Mounts.*.Type``: which entry of a list it is does not matter."""
    return ".".join("*" if isinstance(part, int) else part for part in path) or "body"


def _modern(schema: Any) -> Any:
    """A schema of Swagger 2 as JSON Schema: what Go may leave null may be null."""
    if isinstance(schema, list):
        return [_modern(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _modern(value) for key, value in schema.items() if key not in ("format", "default")}
    out.pop("x-nullable", None)
    kind = out.get("type")
    # Go writes lists and maps that were never filled as null, whatever the specification says of them.
    may_be_null = schema.get("x-nullable") or kind == "array" or "additionalProperties" in out
    if not may_be_null:
        return out
    if isinstance(kind, str):
        return {
            **out,
            "type": [kind, "null"],
            **({"enum": [*out["enum"], None]} if "enum" in out else {}),
        }
    return {"anyOf": [out, {"type": "null"}]}
