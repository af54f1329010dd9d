"""A daemon for Docker's clients: one a module, named by the environment as a user would."""

from collections.abc import Iterator

import pytest
from daemon_harness.daemon import Daemon
from daemon_harness.fixtures import daemon, new_daemon, shared_daemon

__all__ = ["daemon", "docker_environment", "fresh", "new_daemon", "shared_daemon"]


@pytest.fixture
def docker_environment(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The daemon, and the one variable that a user sets."""
    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    monkeypatch.setenv("DOCKER_CONFIG", str(daemon.folder))
    return daemon


@pytest.fixture
def fresh() -> Iterator[Daemon]:
    """A daemon that nobody has used, with the image that the scripts use."""
    daemon = Daemon()
    try:
        daemon.start()
        daemon.build_busybox()
        yield daemon
    finally:
        daemon.close()
