"""A daemon for Docker's clients: one a module. A folder's conftest brings these in by name."""

import os
import shutil
from collections.abc import Iterator

import pytest

from daemon_harness.daemon import Daemon


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """The module's daemon; tests use ``daemon``, which tidies up after each."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program in ("docker", "conmon", "nft", "ip", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    daemon = Daemon()
    try:
        daemon.start()
        daemon.build_busybox()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The module's daemon with an image ``busybox``; what a test makes in it goes with the test."""
    yield shared_daemon
    shared_daemon.clean()
