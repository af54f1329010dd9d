"""A daemon for Docker's clients: one a module, named by the environment as a user would."""

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.fixtures import daemon, fresh, new_daemon, shared_daemon

__all__ = ["daemon", "docker_environment", "fresh", "new_daemon", "shared_daemon"]


@pytest.fixture
def docker_environment(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The daemon, and the one variable that a user sets."""
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    monkeypatch.setenv("DOCKER_CONFIG", str(daemon.folder))
    return daemon
