"""docs/how-to/plugin.md is followed to the letter: its files make a plugin that passes its own tests."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "plugin.md"
FILE = re.compile(r"^`(?P<path>[^`\n]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The folder of the guide, installed as far as entry points go."""
    for found in FILE.finditer(GUIDE.read_text()):
        path = tmp_path / found["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found["text"])
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    info = tmp_path / "src" / "linkspan_shared_volumes-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
            for group, points in groups
        )
    )
    return tmp_path


def run(plugin: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the workspace with the plugin installed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(plugin / "src"),
        "XDG_CACHE_HOME": str(plugin),
        # A daemon that runs on this machine knows nothing of the plugin.
        "LINKSPAN_HOST": f"unix://{plugin}/no-daemon",
    }
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=plugin,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_every_file_of_the_tree_is_shown(plugin: Path) -> None:
    names = {str(p.relative_to(plugin)) for p in plugin.rglob("*") if "dist-info" not in str(p)}
    package = "src/linkspan_shared"
    assert {
        "pyproject.toml",
        f"{package}/__init__.py",
        f"{package}/linkspan-plugin.toml",
        f"{package}/driver.py",
        f"{package}/hooks.py",
        "tests/test_driver.py",
    } <= names


def test_its_tests_pass(plugin: Path, tmp_path: Path) -> None:
    # A folder of its own: it would clean up those of other runs, and fail if one is in use.
    folder = f"--basetemp={tmp_path / 't'}"
    done = run(plugin, "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d passed", done.stdout)


def test_the_platform_finds_it_and_takes_its_settings(plugin: Path) -> None:
    listed = run(plugin, "linkspan.core.cli", "plugin", "ls", "--format", "json")
    assert listed.returncode == 0, listed.stderr
    found = [p for p in json.loads(listed.stdout) if "shared-volumes" in p.values()]
    assert found, listed.stdout
    assert "ready" in found[0].values(), found
    config = plugin / "linkspan.toml"
    config.write_text('[volume]\ndriver = "shared"\n\n[volume.shared]\nroot = "/mnt/shared"\n')
    checked = run(plugin, "linkspan.core.cli", "--config", str(config), "config", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    config.write_text('[volume]\ndriver = "shared"\n\n[volume.shared]\nroute = "/mnt/shared"\n')
    checked = run(plugin, "linkspan.core.cli", "--config", str(config), "config", "check")
    assert checked.returncode != 0
    assert "root" in checked.stdout + checked.stderr


def test_it_reads_like_the_house(plugin: Path) -> None:
    ruff = Path(sys.executable).parent / "ruff"
    done = subprocess.run(
        [ruff, "check", "--isolated", "--line-length", "100", "--select", "E,F,W,I,B", "src"],
        cwd=plugin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
