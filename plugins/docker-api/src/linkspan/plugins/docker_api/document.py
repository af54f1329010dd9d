"""A JSON object that a client sent, read field by field with its types checked.

Docker's own server is written in Go, whose decoder ignores unknown fields, takes ``null`` for "not
given", and refuses a value of another type with 400. This does the same and names the field.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import parse_json

_NAMES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _wrong(path: str, wanted: str, value: object) -> InvalidArgument:
    return InvalidArgument(
        f"invalid JSON: {path or 'the body'} must be {wanted}, not {_NAMES[type(value)]}",
        code="invalid_json",
    )


class Document:
    """One object; ``path`` leads to it from the top, for messages."""

    def __init__(self, value: object, path: str = "") -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise _wrong(path, "an object", value)
        self.value: dict[str, Any] = value
        self.path = path
        self._folded: dict[str, Any] | None = None

    def _get(self, key: str) -> Any:
        if key in self.value:
            return self.value[key]
        # Go takes keys in any case; docker-py relies on it (``{"Mode": {"replicated": …}}``).
        if self._folded is None:
            self._folded = {name.lower(): value for name, value in self.value.items()}
        return self._folded.get(key.lower())

    def __contains__(self, key: str) -> bool:
        return self._get(key) is not None

    def __bool__(self) -> bool:
        return bool(self.value)

    def at(self, key: str) -> str:
        """The path of a field."""
        return f"{self.path}.{key}" if self.path else key

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise _wrong(self.at(key), "a string", value)
        return value

    def number(self, key: str, default: int = 0) -> int:
        """A whole number; ``2.0`` counts as one, as JavaScript writes it."""
        value = self._get(key)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(self.at(key), "a whole number", value)
        if not -(2**63) <= value < 2**63:
            raise InvalidArgument(
                f"invalid JSON: {self.at(key)} must fit into 64 bits", code="invalid_json"
            )
        return value

    def unsigned(self, key: str, bits: int, default: int = 0) -> int:
        """A whole number of so many bits that is not negative."""
        value = self.number(key, default)
        if not 0 <= value < 1 << bits:
            raise InvalidArgument(
                f"invalid JSON: {self.at(key)} must be from 0 to {(1 << bits) - 1}",
                code="invalid_json",
            )
        return value

    def ratio(self, key: str, default: float = 0.0) -> float:
        """A number with a fraction."""
        value = self._get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(self.at(key), "a number", value)
        return float(value)

    def seconds(self, key: str, default: float = 0.0) -> float:
        """A duration that the API counts in nanoseconds."""
        return self.number(key) / 1e9 if key in self else default

    def flag(self, key: str, default: bool = False) -> bool:
        """A boolean."""
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong(self.at(key), "a boolean", value)
        return value

    def items(self, key: str) -> list[Any]:
        """An array of anything."""
        value = self._get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _wrong(self.at(key), "an array", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings."""
        found = self.items(key)
        for at, item in enumerate(found):
            if not isinstance(item, str):
                raise _wrong(f"{self.at(key)}[{at}]", "a string", item)
        return tuple(found)

    def words(self, key: str) -> tuple[str, ...] | None:
        """A command line: an array of strings or one string; None if it is not given."""
        value = self._get(key)
        if value is None:
            return None
        return (value,) if isinstance(value, str) else self.texts(key)

    def keys_of(self, key: str) -> tuple[str, ...]:
        """The keys of a set that Go writes as a map to nothing: ``{"80/tcp": {}}``."""
        return tuple(self.document(key).value) if key in self else ()

    def text_map(self, key: str) -> dict[str, str]:
        """A map of strings; a null in it is an empty string."""
        if key not in self:
            return {}
        inner = self.document(key)
        return {name: inner.text(name) for name in inner.value}

    def document(self, key: str) -> "Document":
        """An object; an empty one if it is not given."""
        return Document(self._get(key), self.at(key))

    def documents(self, key: str) -> Iterator["Document"]:
        """An array of objects."""
        for at, item in enumerate(self.items(key)):
            yield Document(item, f"{self.at(key)}[{at}]")

    def named_documents(self, key: str) -> Iterator[tuple[str, "Document"]]:
        """A map of objects."""
        inner = self.document(key)
        for name in inner.value:
            yield name, inner.document(name)


def parse_parameter(name: str, text: str) -> Any:
    """JSON in a query parameter or header. Raises InvalidArgument."""
    try:
        return parse_json(text)
    except ValueError as error:
        raise InvalidArgument(f"parameter '{name}' is not valid JSON: {error}") from error


def map_parameter(name: str, text: str | None) -> Mapping[str, str | None]:
    """A map of strings in a query parameter; a null stays None."""
    if not text:
        return {}
    value = parse_parameter(name, text)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(
        v is None or isinstance(v, str) for v in value.values()
    ):
        raise InvalidArgument(f"parameter '{name}' must be an object of strings")
    return value
