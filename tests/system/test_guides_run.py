"""Guides are followed to the letter, but for ports, ids and folders."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_harness.daemon import LINKSPAN, ROOT, Daemon
from daemon_harness.pages import run_page
from daemon_harness.ports import free_port
from daemon_harness.voyage import copy_pipeline

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

DOCS = ROOT / "docs"


def environment(daemon: Daemon) -> dict[str, str]:
    """The daemon's, with our programs found first."""
    found = daemon.environment
    return {**found, "PATH": f"{LINKSPAN.parent}:{found['PATH']}"}


def test_the_first_voyage_goes_as_it_is_told(
    new_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = new_daemon().start()
    port = free_port()
    pipeline = copy_pipeline(tmp_path / "workflows")
    text = pipeline.read_text()
    pipeline.write_text(
        text.replace('"127.0.0.1:5000"', f'"{daemon.registry}"').replace(
            "default: 8080", f"default: {port}"
        )
    )
    assert pipeline.read_text().count(daemon.registry) == 1

    def as_here(command: str, said: str) -> str:
        command = command.replace("unix:///srv/voyage/run/linkspan.sock", daemon.url)
        command = command.replace("127.0.0.1:5000", daemon.registry)
        return command.replace("127.0.0.1:8080", f"127.0.0.1:{port}")

    said = run_page(DOCS / "tutorial/first-voyage.md", environment(daemon), tmp_path, as_here)
    assert re.search(r"^voyage 1, answered by [0-9a-f]{12}$", said, re.MULTILINE)
    assert "deploy/rollout failed" in said
    assert "✓ api  2/2 run" in said


def test_the_registry_is_used_as_it_is_told(daemon: Daemon, tmp_path: Path) -> None:
    daemon.cli("tag", "busybox", "shop:1")

    def as_here(command: str, said: str) -> str:
        digest = re.search(r"^docker-content-digest: (\S+)$", said, re.MULTILINE | re.IGNORECASE)
        if digest:
            command = command.replace("sha256:4f5a…", digest[1])
        return command.replace("127.0.0.1:5000", daemon.registry)

    said = run_page(DOCS / "how-to/registry.md", environment(daemon), tmp_path, as_here)
    assert '{"repositories":["shop"]}' in said
