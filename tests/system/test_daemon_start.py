"""A daemon's start loads what it needs to answer; the rest waits for the one who asks for it."""

from collections.abc import Callable
from importlib.util import find_spec

import pytest
from daemon_harness.daemon import Daemon

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

LATER = (
    "click",
    "linkspan.core.config.report",
    "linkspan.core.engine.archive.layers",
    "linkspan.core.engine.manifests",
    "linkspan.core.engine.pull",
    "linkspan.workflows.graph",
    "linkspan.workflows.manager",
    "linkspan.workflows.parse",
    "linkspan.plugins.docker_api.containers",
    "linkspan.plugins.docker_api.services",
    "linkspan.plugins.dockerfile_builder.building",
    "linkspan.plugins.dockerfile_builder.instructions",
    "linkspan.plugins.dockerfile_builder.tree",
)
"""Packages and modules that a daemon which nobody has asked for anything does not need."""


def imported(daemon: Daemon) -> set[str]:
    """The modules that Python says in the daemon's log that it has loaded."""
    lines = daemon.log.read_text(errors="replace").splitlines()
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def test_a_daemon_answers_before_it_loads_what_only_some_use(
    new_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    assert [name for name in LATER if find_spec(name) is None] == []
    modules = imported(new_daemon().start())
    assert "linkspan.core.daemon.assembly" in modules
    assert {m for m in modules for n in LATER if m == n or m.startswith(f"{n}.")} == set()
