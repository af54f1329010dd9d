"""When conmon is told to open its log anew: each telling too many would cost lines."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from linkspan.plugins.oci_runtime import rotation
from linkspan.plugins.oci_runtime.rotation import Rotated, ages, older, reopen, rotate


class Conmon:
    """A process in the place of conmon, and the pipe by which it is told."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
        os.mkfifo(folder / "ctl")
        self._ctl = os.open(folder / "ctl", os.O_RDWR | os.O_NONBLOCK)
        self.log = Rotated(
            path=folder / "log",
            ctl=folder / "ctl",
            conmon=self.process.pid,
            max_bytes=1024,
            max_files=3,
        )

    def told(self) -> int:
        """How many commands it reads now."""
        try:
            return os.read(self._ctl, 1 << 16).count(b"\n")
        except BlockingIOError:
            return 0

    def stop(self) -> None:
        """It is in the middle of something."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ctl)


@pytest.fixture
def conmon(tmp_path: Path) -> Iterator[Conmon]:
    made = Conmon(tmp_path)
    yield made
    made.end()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_REOPEN_TIMEOUT_S", 0.05)


@pytest.fixture
def when_told(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something as soon as a command was written."""

    def set_up(act: Callable[[], object]) -> None:
        write = os.write

        def write_and_act(fd: int, data: bytes) -> int:
            written = write(fd, data)
            act()
            return written

        monkeypatch.setattr(rotation.os, "write", write_and_act)

    return set_up


def test_conmon_is_told_once_to_begin_a_new_file(
    conmon: Conmon, when_told: Callable[[Callable[[], object]], None]
) -> None:
    conmon.log.path.write_text("old")
    when_told(conmon.log.path.touch)
    conmon.stop()  # there was a log, so it is not asked whether it is at rest
    rotate(conmon.log)
    assert conmon.told() == 1
    assert ages(conmon.log.path) == {0, 1}


def test_a_log_of_one_file_has_what_was_said_last(
    conmon: Conmon, when_told: Callable[[Callable[[], object]], None]
) -> None:
    log = attrs.evolve(conmon.log, max_files=1)
    when_told(log.path.touch)
    for said in ("first", "second"):
        log.path.write_text(said)
        rotate(log)
    assert ages(log.path) == {0, 1}
    assert older(log.path, 1).read_text() == "second"


def test_a_log_that_was_lost_between_two_daemons_is_opened_anew(
    conmon: Conmon, when_told: Callable[[Callable[[], object]], None]
) -> None:
    when_told(conmon.log.path.touch)
    assert reopen(conmon.log)
    assert conmon.told() == 1


def test_a_command_that_conmon_has_not_read_is_not_given_again(
    conmon: Conmon, impatient: None
) -> None:
    assert not reopen(conmon.log)
    assert not reopen(conmon.log)
    assert conmon.told() == 1


def test_a_conmon_that_may_be_at_a_command_is_given_no_other(
    conmon: Conmon, impatient: None
) -> None:
    conmon.stop()
    assert not reopen(conmon.log)
    assert conmon.told() == 0


def test_a_conmon_that_did_as_it_was_told_before_is_left_alone(conmon: Conmon) -> None:
    conmon.log.path.touch()
    assert reopen(conmon.log)
    assert conmon.told() == 0


def test_a_conmon_that_has_ended_is_told_nothing(tmp_path: Path) -> None:
    made = Conmon(tmp_path)
    made.end()
    assert not reopen(made.log)
