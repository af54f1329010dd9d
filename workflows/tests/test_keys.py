"""Keys are taken from a terminal only, and given back."""

import os
import pty
import sys
import termios

import pytest

from linkspan.workflows.keys import ESCAPE, Keys


@pytest.fixture
def terminal(monkeypatch):
    """The keyboard's end of a terminal that is stdin, and belongs to whoever asks."""
    keyboard, screen = pty.openpty()
    with os.fdopen(screen, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: os.getpgrp())
        yield keyboard
    os.close(keyboard)


def echoes() -> bool:
    return bool(termios.tcgetattr(sys.stdin.fileno())[3] & termios.ECHO)


def test_a_key_is_read_at_once_and_the_terminal_is_as_before_afterwards(terminal):
    with Keys(wanted=True) as keys:
        assert not echoes()
        os.write(terminal, b"l")
        assert keys.read() == "l"
        os.write(terminal, b"\x1b")
        assert keys.read() == ESCAPE
        os.write(terminal, b"\x1b[A")
        assert keys.read() == ""
        keys.pause()
        assert echoes()
        assert keys.read() == ""
        keys.resume()
        assert not echoes()
    assert echoes()


def test_nothing_is_taken_where_nothing_is_wanted(terminal):
    with Keys(wanted=False) as keys:
        assert keys.fd is None
        assert echoes()


def test_nothing_is_taken_in_the_background(terminal, monkeypatch):
    monkeypatch.setattr(os, "tcgetpgrp", lambda _fd: os.getpgrp() + 1)
    with Keys(wanted=True) as keys:
        assert keys.fd is None
        assert echoes()


def test_a_pipe_has_no_keys(monkeypatch):
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with Keys(wanted=True) as keys:
            assert keys.fd is None
            assert keys.read() == ""
