"""What is in the tree, and what must not be."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))

# Where packages come from is the business of whoever installs them. (The brackets keep this file out.)
PACKAGE_HOSTS = re.compile(r"pypi[.]org|python[h]osted|registry[.]npmjs|deb[.]debian")
# Places of one machine; `.docker` of the daemon's user is everybody's, and so is a process's root in /proc.
PLACES = re.compile(r"(?<!})/[r]oot/(?!\.docker)|/[w]ork/(?:main|shared|\.)")
# These are about foreign machines' files, or are not text of ours.
DATA = re.compile(r"/tests/data/|^LICENSE$")


def tracked() -> Iterator[tuple[str, str]]:
    """Path and text of every text file that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        try:
            yield name, (ROOT / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue


def test_no_file_names_a_package_registry_or_a_place_of_one_machine() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked()
        if not DATA.search(name)
        for number, line in enumerate(text.splitlines(), 1)
        if PACKAGE_HOSTS.search(line) or PLACES.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda p: p.name)
def test_every_plugin_has_a_manifest_a_readme_and_tests(plugin: Path) -> None:
    assert len(list(plugin.glob("src/linkspan/plugins/*/linkspan-plugin.toml"))) == 1
    assert list(plugin.glob("src/linkspan/plugins/*/py.typed"))
    assert list(plugin.glob("tests/test_*.py"))
    # More than a title and a sentence.
    assert len((plugin / "README.md").read_text().splitlines()) > 5


def test_nobody_closes_the_namespace() -> None:
    closed = [
        *ROOT.glob("*/src/linkspan/__init__.py"),
        *ROOT.glob("plugins/*/src/linkspan/__init__.py"),
    ]
    closed += ROOT.glob("plugins/*/src/linkspan/plugins/__init__.py")
    assert closed == []
