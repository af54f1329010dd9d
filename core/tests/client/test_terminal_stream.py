"""A terminal or pipes joined with a process on the other side of a socket."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from linkspan.core.client.terminal_stream import (
    BadDetachKeysError,
    DetachFilter,
    parse_detach_keys,
)

CODE = """
import socket, sys
from linkspan.core.client.terminal_stream import Session
sock = socket.socket(fileno=int(sys.argv[1]))
print("ended", Session(sock, b"early", tty=True, stdin=True).run(), file=sys.stderr)
"""


def test_detach_keys_are_letters_and_control_keys() -> None:
    assert parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-[,ctrl-@") == b"a\x1b\x00"
    assert parse_detach_keys("") == b""
    for bad in ("ctrl-1", "ctrl-", "ab", "meta-x"):
        with pytest.raises(BadDetachKeysError):
            parse_detach_keys(bad)


@pytest.mark.parametrize(
    ("typed", "sent", "detached"),
    [
        ([b"ls\n"], b"ls\n", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10\x10", b"x"], b"\x10\x10x", False),
    ],
)
def test_the_detach_keys_are_held_back_until_it_is_clear(
    typed: list[bytes], sent: bytes, detached: bool
) -> None:
    keys = DetachFilter(b"\x10\x11")
    out, done = b"", False
    for data in typed:
        passed, done = keys.feed(data)
        out += passed
    assert (out, done) == (sent, detached)


def run(ours: socket.socket, theirs: socket.socket, stdin: object) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CODE), str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=stdin,  # type: ignore[arg-type]
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    theirs.close()
    return process


def test_a_process_that_writes_while_it_is_written_to_blocks_nobody() -> None:
    """``cat``: everything that goes in comes back at once, far more than the buffers hold."""
    ours, theirs = socket.socketpair()
    data = os.urandom(1 << 20) * 8
    if os.fork() == 0:
        theirs.close()
        while piece := ours.recv(65536):
            ours.sendall(piece)
        ours.shutdown(socket.SHUT_WR)
        os._exit(0)
    ours.close()
    process = run(ours, theirs, subprocess.PIPE)
    out, err = process.communicate(data, timeout=30)
    os.wait()
    assert err == b"ended True\n"
    assert hashlib.sha256(out).digest() == hashlib.sha256(b"early" + data).digest()


def test_a_file_as_stdin_is_sent_to_its_end(tmp_path: object) -> None:
    ours, theirs = socket.socketpair()
    path = f"{tmp_path}/in"
    with open(path, "wb") as stream:  # noqa: PTH123
        stream.write(b"x" * 300_000)
    with open(path, "rb") as stream:  # noqa: PTH123
        process = run(ours, theirs, stream)
    received = b""
    while piece := ours.recv(65536):
        received += piece
    ours.close()
    out, err = process.communicate(timeout=30)
    assert (len(received), out, err) == (300_000, b"early", b"ended True\n")


def test_output_goes_on_after_stdin_has_ended() -> None:
    ours, theirs = socket.socketpair()
    process = run(ours, theirs, subprocess.DEVNULL)
    assert ours.recv(10) == b""
    ours.sendall(b" late")
    ours.close()
    out, err = process.communicate(timeout=30)
    assert (out, err) == (b"early late", b"ended True\n")


def test_a_process_that_has_ended_takes_no_more_input() -> None:
    ours, theirs = socket.socketpair()
    process = run(ours, theirs, subprocess.PIPE)
    ours.sendall(b" done")
    ours.close()
    out, err = process.communicate(b"x" * 1_000_000, timeout=30)
    assert (out, err) == (b"early done", b"ended True\n")


def test_who_is_told_to_end_three_times_and_goes_on_is_left_to_itself() -> None:
    ours, theirs = socket.socketpair()
    code = """
import socket, sys
from linkspan.core.client.terminal_stream import Session
sock = socket.socket(fileno=int(sys.argv[1]))
def kill(name):
    print(name, flush=True)
try:
    Session(sock, b"", tty=False, stdin=False, kill=kill).run(lambda: kill("begun"))
except KeyboardInterrupt:
    print("left")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    assert process.stdout is not None
    with process, ours:
        assert process.stdout.readline() == "begun\n"
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            process.send_signal(number)
            assert process.stdout.readline() == f"{number.name}\n"
        assert process.stdout.readline() == "left\n"
        assert process.wait(30) == 0
