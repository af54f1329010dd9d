"""Commands that plugins contribute, from their manifests, without importing anything of them.

Scanning all installed packages takes longer than a short command may, so its result is kept in one
JSON file an environment, valid while the folders of packages and the manifests keep their
modification times.
"""

import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from linkspan.core.cli.command import Row
from linkspan.core.client.resolve import read_table
from linkspan.sdk.files import replace_file

_FORMAT: Final = 2

Rows = list[tuple[str, Row]]
"""Plugin's name and row."""


def plugin_commands(config: str = "") -> Sequence[Row]:
    """The rows that installed plugins add to the table, those of disabled ones left out.

    Args:
        config: The config file that was named, if any.
    """
    file = _cache_file()
    folders = _folders()
    rows = _read(file, folders)
    if rows is None:
        rows, manifests = _scan()
        _write(file, folders, manifests, rows)
    if not rows:
        return []
    table = read_table("plugins", config or os.environ.get("LINKSPAN_CONFIG", ""))
    disabled = table.get("disable")
    off = disabled if isinstance(disabled, list) else []
    return [row for plugin, row in rows if plugin not in off]


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    name = sys.prefix.strip("/").replace("/", "-") or "root"
    return Path(base) / "linkspan" / f"commands-{name[-100:]}.json"


def _folders() -> dict[str, int]:
    """The folders that hold installed packages, with their modification times."""
    found = {}
    for entry in sys.path:
        if entry.endswith(("site-packages", "dist-packages")):
            try:
                found[entry] = os.stat(entry).st_mtime_ns  # noqa: PTH116 - on the quick path
            except OSError:
                continue
    return found


def _read(file: Path, folders: dict[str, int]) -> Rows | None:
    """The cached rows, or None if they are missing, stale, or not ours alone to write."""
    try:
        with file.open("rb") as stream:
            stat = os.fstat(stream.fileno())
            if stat.st_uid != os.geteuid() or stat.st_mode & 0o022:
                return None
            cached: Any = json.loads(stream.read())
        if cached["format"] != _FORMAT or cached["folders"] != folders:
            return None
        for manifest, mtime_ns in cached["manifests"].items():
            if os.stat(manifest).st_mtime_ns != mtime_ns:  # noqa: PTH116
                return None
        return [(plugin, Row(*row)) for plugin, row in cached["rows"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _scan() -> tuple[Rows, dict[str, int]]:
    from importlib import metadata

    from linkspan.core.plugins.manifest import ManifestError, ManifestFinder, read_manifest

    rows: Rows = []
    manifests: dict[str, int] = {}
    finder = ManifestFinder()
    for point in metadata.entry_points(group="linkspan.manifest"):
        file = finder.find(point.value)
        if file is not None:
            manifests[str(file)] = file.stat().st_mtime_ns
        try:
            manifest = read_manifest(point.value, finder=finder)
        except ManifestError:
            continue  # `linkspan plugin ls` shows it with its reason
        rows.extend((manifest.name, Row(c.words, c.run, c.summary)) for c in manifest.commands)
    return rows, manifests


def _write(file: Path, folders: dict[str, int], manifests: dict[str, int], rows: Rows) -> None:
    """Keep the result for the next call; a cache that cannot be written is no fault."""
    document = {"format": _FORMAT, "folders": folders, "manifests": manifests, "rows": rows}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(file, json.dumps(document).encode())
