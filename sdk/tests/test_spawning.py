"""Programs started by posix_spawn: what they get, and what they do not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from linkspan.sdk import spawning
from linkspan.sdk.spawning import spawn

_PATH = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


def _output(script: str, null: int, cwd: str = "/", *more: int) -> str:
    """What a shell script writes to its descriptor 1."""
    reader, writer = os.pipe()
    try:
        descriptors = (null, writer, null, *more)
        pid = spawn(["sh", "-c", script], environment=_PATH, cwd=cwd, descriptors=descriptors)
        os.close(writer)
        with os.fdopen(os.dup(reader)) as file:
            text = file.read()
        assert os.waitpid(pid, 0)[1] == 0
        return text
    finally:
        os.close(reader)


def test_a_program_runs_where_it_is_told_to_in_a_session_of_its_own(
    null: int, tmp_path: Path
) -> None:
    text = _output("pwd; echo $$; cut -d ' ' -f 6 /proc/$$/stat", null, str(tmp_path))
    folder, pid, session = text.splitlines()
    assert folder == str(tmp_path)
    assert pid == session


def test_a_program_gets_no_descriptor_but_those_that_are_named(null: int) -> None:
    leaked = os.dup(null)
    os.set_inheritable(leaked, True)
    try:
        look = "for n in $(seq 0 300); do test -e /proc/$$/fd/$n && echo $n; done; true"
        text = _output(look, null, "/", null)
    finally:
        os.close(leaked)
    assert text.split() == ["0", "1", "2", "3"]


def test_libraries_without_closefrom_leave_nothing_open_either(
    null: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Older:
        def __getattr__(self, name: str) -> object:
            if name == "posix_spawn_file_actions_addclosefrom_np":
                raise AttributeError(name)
            return getattr(spawning.ctypes.CDLL(None), name)

    monkeypatch.setattr(spawning, "_libc", Older())
    test_a_program_gets_no_descriptor_but_those_that_are_named(null)


def test_descriptors_that_stand_in_each_others_places_arrive_in_order(null: int) -> None:
    first, second = (os.pipe() for _ in range(2))
    try:
        # Whatever numbers they have: the source of 3 is lower than its place and is not overwritten before.
        spare = os.dup(0)
        os.dup2(first[1], 0)
        try:
            pid = spawn(
                ["sh", "-c", "echo low >&3; echo high >&4"],
                environment=_PATH,
                cwd="/",
                descriptors=(null, null, null, 0, second[1]),
            )
        finally:
            os.dup2(spare, 0)
            os.close(spare)
        assert os.waitpid(pid, 0)[1] == 0
        assert os.read(first[0], 9) == b"low\n"
        assert os.read(second[0], 9) == b"high\n"
    finally:
        for fd in (*first, *second):
            os.close(fd)


def test_no_signal_stays_ignored(null: int) -> None:
    text = _output("grep SigIgn /proc/$$/status", null)
    assert int(text.split()[1], 16) == 0


@pytest.mark.parametrize("program", ["/no/such/program", "no-such-program"])
def test_a_program_that_is_not_there_is_named(null: int, program: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        spawn([program], environment=_PATH, cwd="/", descriptors=(null, null, null))
    assert caught.value.filename == program
