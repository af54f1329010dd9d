"""What a ``--format`` template sees of a list: a record's fields, and the headers of their columns."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from linkspan.sdk.templates import FUNCTIONS, Template
from linkspan.sdk.templates.functions import Function

_KNOWN: Final = {
    "ID": "ID",
    "PIDs": "PIDS",
    "CPUPerc": "CPU %",
    "MemPerc": "MEM %",
    "MemUsage": "MEM USAGE / LIMIT",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "RunningFor": "CREATED",
    "CreatedSince": "CREATED",
    "UpdatedAt": "UPDATED",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "TotalCount": "TOTAL",
}
_WORD: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


_NULL_IF_EMPTY: Final = ("Platform",)
_UNCHANGED: Final = {
    name: Function(lambda value, *_: value, FUNCTIONS[name].takes)
    for name in ("json", "title", "lower", "upper", "truncate")
}
"""A header stays as it is, whatever its column goes through."""


class Record(Mapping[str, Any]):
    """An entry of a list, by Docker's names; what the API sent can be reached too."""

    def __init__(self, fields: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        labels = sent.get("Labels") or (sent.get("Spec") or {}).get("Labels")
        label = {"Label": lambda name: str(labels.get(name, "")) if labels else ""}
        self._fields = fields
        self._all = {**sent, **label, **fields}

    def __getitem__(self, name: str) -> Any:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def as_json(self) -> str:
        """Docker's fields in the order of their names, written as Go writes them."""
        known = {
            key: None if key in _NULL_IF_EMPTY and not item else item
            for key, item in self._fields.items()
            if not callable(item)
        }
        text = json.dumps(known, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def header_template(text: str, own: Mapping[str, str]) -> str:
    """The line of headers of a ``table`` template.

    Args:
        text: The template.
        own: Headers that the names of the fields do not say.
    """
    return Template(text, functions={**FUNCTIONS, **_UNCHANGED}).render(Titles(own))


class Titles(Mapping[str, Any]):
    """A record whose every field is the header of its column: ``CreatedAt`` is ``CREATED AT``."""

    def __init__(self, own: Mapping[str, str]) -> None:
        self._own = own

    def __getitem__(self, name: str) -> Any:
        if name == "Label":
            return _of_label
        if name in self._own:
            return self._own[name]
        return _KNOWN.get(name) or " ".join(_WORD.findall(name)).upper()

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


def _of_label(name: str) -> str:
    """``com.example.stage-name`` is ``stage name``."""
    return re.sub(r"[-_]", " ", name.rpartition(".")[2])
