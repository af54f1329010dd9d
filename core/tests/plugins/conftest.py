"""Installs small packages into a temporary folder, with entry points like a wheel's."""

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from textwrap import dedent

import pytest

Install = Callable[..., Path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    def install(
        name: str,
        files: dict[str, str],
        entry_points: dict[str, dict[str, str]],
        version: str = "1.1.0",
    ) -> Path:
        for file, text in files.items():
            path = site / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines: list[str] = []
        for group, points in entry_points.items():
            lines.append(f"[{group}]")
            lines.extend(f"{key} = {value}" for key, value in points.items())
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        return site

    return install


@pytest.fixture
def points(site: Path) -> Callable[[], list[metadata.EntryPoint]]:
    def points() -> list[metadata.EntryPoint]:
        found = metadata.distributions(path=[str(site)])
        return [point for dist in found for point in dist.entry_points]

    return points
