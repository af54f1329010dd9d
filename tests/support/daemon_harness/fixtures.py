"""Daemons for tests: one a module, and as many more as a test wants. A folder's conftest names these."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon_harness.daemon import Daemon


def require(*programs: str) -> None:
    """Skip where the machine lacks what a real daemon needs."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")


def _running() -> Iterator[Daemon]:
    require("conmon", "nft", "ip", "busybox")
    daemon = Daemon()
    try:
        daemon.start()
        daemon.build_busybox()
        yield daemon
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    """The module's daemon; tests use ``daemon``, which tidies up after each."""
    yield from _running()


@pytest.fixture
def fresh() -> Iterator[Daemon]:
    """A daemon that nobody has used, with the image ``busybox``."""
    yield from _running()


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """The module's daemon with an image ``busybox``; what a test makes in it goes with the test."""
    yield shared_daemon
    shared_daemon.clean()


@pytest.fixture
def new_daemon() -> Iterator[Callable[..., Daemon]]:
    """Makes a daemon of the test's own, not yet started; takes what ``Daemon`` takes."""
    require("conmon", "nft", "ip", "busybox")
    made: list[Daemon] = []

    def make(data_root: Path | None = None, config: str = "") -> Daemon:
        made.append(Daemon(data_root=data_root, config=config))
        return made[-1]

    yield make
    errors = []
    for daemon in made:
        try:
            daemon.close()
        except BaseException as error:  # noqa: BLE001 - the others must be closed, too
            errors.append(error)
    if errors:
        raise errors[0]
