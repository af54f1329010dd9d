"""Streams that are closed, full or silent: no traceback, no word about a fault of ours."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from linkspan.core.cli.progress import Display, Transfer
from linkspan.core.cli.session import Session


def start(fake: Any, line: str) -> subprocess.CompletedProcess[str]:
    """A command line of the shell in which ``ls_`` is our program."""
    program = f"{sys.executable} -m linkspan.core.cli"
    environ: Mapping[str, str] = {**os.environ, "LINKSPAN_HOST": fake.url}
    return subprocess.run(
        ["sh", "-c", line.replace("ls_", program)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("ls_ ps <&-", 0),
        ("ls_ ps >&-", 0),
        ("ls_ ps <&- >&- 2>&-", 0),
        ("ls_ inspect web >&-", 0),
        ("ls_ ps --nosuch 2>&-", 2),
    ],
)
def test_closed_streams_are_nobodys(fake: Any, line: str, status: int) -> None:
    fake.on("GET", "/containers/json", [])
    fake.on("GET", "/containers/web/json", {"Id": "c"})
    with fake.running():
        done = start(fake, line)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("words", ["ps", "inspect web", "--help"])
def test_a_full_disk_behind_stdout_is_told(fake: Any, words: str) -> None:
    fake.on("GET", "/containers/json", [])
    fake.on("GET", "/containers/web/json", {"Id": "c"})
    with fake.running():
        done = start(fake, f"ls_ {words} >/dev/full")
    told = "error: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_clocks_go_on_while_the_daemon_is_silent(fake: Any) -> None:
    def pull(_request: Any, connection: Any) -> None:
        connection.head(200, {"Connection": "close"})
        connection.sock.sendall(b'{"status":"Pulling from x"}\n')
        connection.await_event("seen")
        connection.sock.sendall(b'{"status":"Digest: sha256:a"}\n')

    fake.on("POST", "/images/create", pull)
    session, seen = Session(), 0
    session.host, session.progress = fake.url, "plain"

    class Counted(Display):
        def update(self) -> None:
            nonlocal seen
            seen += 1
            if seen == 3:  # the record, and twice in the silence behind it
                (fake.folder / "event-seen").touch()

    display = Counted(session, Transfer("x").lines, "pull of x")
    with fake.running(), session.api.open("POST", "/images/create", silence_s=None) as answer:
        assert len(list(display.follow(answer))) == 2
    assert seen >= 3


def test_a_narrow_terminal_shows_how_far_it_is_first() -> None:
    transfer = Transfer("registry.example.test:5000/shop/web:1.2")
    transfer.take(
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 10}}
    )
    assert transfer.lines()[0].startswith(" 50 %  registry.example.test")
