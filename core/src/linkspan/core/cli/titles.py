"""Headers of the columns of ``--format 'table {{…}}'``: Docker's, found by filling the template with them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

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


class Titles(Mapping[str, Any]):
    """A record whose every field is the header of its column: ``CreatedAt`` is ``CREATED AT``."""

    def __init__(self, own: Mapping[str, str]) -> None:
        self._own = own

    def __getitem__(self, name: str) -> Any:
        if name == "Label":
            return _of_label
        known = self._own.get(name) or _KNOWN.get(name)
        return known or " ".join(_WORD.findall(name)).upper()

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)


def _of_label(name: str) -> str:
    """``com.example.stage-name`` is ``STAGE NAME``."""
    return re.sub(r"[-_]", " ", name.rpartition(".")[2]).upper()
