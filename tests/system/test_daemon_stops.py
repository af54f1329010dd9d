"""SIGTERM to a busy daemon: requests in flight end, streams end in order, containers go on."""

import http.client
import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from daemon_harness.daemon import Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

TALK = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"
STUBBORN = "trap '' TERM; echo ready; while true; do sleep 0.1; done"


def ask(
    stack: ExitStack, daemon: Daemon, method: str, path: str, **headers: str
) -> http.client.HTTPConnection:
    """Send a request and go on."""
    connection = stack.enter_context(daemon.connect())
    connection.request(method, path, headers=headers)
    return connection


def test_requests_in_flight_end_streams_are_ended_and_containers_go_on(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "talker", "busybox", "sh", "-c", TALK)
    daemon.cli("run", "-d", "--name", "stubborn", "busybox", "sh", "-c", STUBBORN)
    until("it has its trap", lambda: daemon.cli("logs", "stubborn").out)
    before = daemon.state("talker")
    with ExitStack() as stack:
        idle = stack.enter_context(daemon.connect())
        idle.request("GET", "/_ping")
        assert idle.getresponse().read() == b"OK"
        paths = ("/events?since=1", "/containers/talker/logs?follow=1&stdout=1")
        following = [ask(stack, daemon, "GET", path).getresponse() for path in paths]
        attached = ask(
            stack,
            daemon,
            "POST",
            "/containers/talker/attach?stream=1&stdout=1",
            Connection="Upgrade",
            Upgrade="tcp",
        )
        assert b"line" in _until(attached.sock, b"line")
        waiting = ask(stack, daemon, "POST", "/containers/talker/wait").getresponse()
        slow = ask(stack, daemon, "POST", "/containers/stubborn/stop?t=5")
        killed = (event for event in _lines(following[0]) if event["Action"] == "kill")
        assert next(killed)["Actor"]["Attributes"]["name"] == "stubborn"

        process = daemon.process
        process.send_signal(signal.SIGTERM)
        until("nobody new is let in", lambda: _refused(daemon))
        answer = slow.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (204, "close")
        # ``read`` raises unless the last chunk has come.
        for stream in following:
            stream.read()
        with pytest.raises(http.client.IncompleteRead):
            waiting.read()
        _until(attached.sock, None)
        assert idle.sock.recv(1) == b""
    assert process.wait(60) == 0
    assert not daemon.complaints()

    daemon.start()
    assert daemon.state("talker") == before
    assert daemon.state("stubborn")["ExitCode"] == 137


def test_what_takes_longer_than_the_limit_does_not_keep_the_daemon(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    quick = 'autostart = false\nshutdown-timeout = "100ms"'
    daemon.config.write_text(daemon.config.read_text().replace("autostart = false", quick))
    daemon.start()
    daemon.build_busybox()
    daemon.cli("run", "-d", "--name", "stubborn", "busybox", "sh", "-c", STUBBORN)
    until("it has its trap", lambda: daemon.cli("logs", "stubborn").out)
    with ExitStack() as stack:
        events = ask(stack, daemon, "GET", "/events?since=1").getresponse()
        slow = ask(stack, daemon, "POST", "/containers/stubborn/stop?t=600")
        assert next(event for event in _lines(events) if event["Action"] == "kill")
        assert daemon.stop() == 0
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            slow.getresponse()
    daemon.start()
    assert daemon.state("stubborn")["Running"]


def test_a_second_signal_ends_the_daemon_at_once(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    patient = 'autostart = false\nshutdown-timeout = "1h"'
    daemon.config.write_text(daemon.config.read_text().replace("autostart = false", patient))
    daemon.start()
    daemon.build_busybox()
    daemon.cli("run", "-d", "--name", "stubborn", "busybox", "sh", "-c", STUBBORN)
    until("it has its trap", lambda: daemon.cli("logs", "stubborn").out)
    with ExitStack() as stack:
        events = ask(stack, daemon, "GET", "/events?since=1").getresponse()
        ask(stack, daemon, "POST", "/containers/stubborn/stop?t=600")
        assert next(event for event in _lines(events) if event["Action"] == "kill")
        process = daemon.process
        process.send_signal(signal.SIGTERM)
        until("nobody new is let in", lambda: _refused(daemon))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    daemon.start()
    assert daemon.state("stubborn")["Running"]


def _until(sock: socket.socket, mark: bytes | None) -> bytes:
    """Read until something was said, or to the end."""
    said = b""
    while mark is None or mark not in said:
        data = sock.recv(65536)
        if not data:
            assert mark is None, said
            break
        said += data
    return said


def _lines(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while line := answer.readline():
        yield json.loads(line)


def _refused(daemon: Daemon) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(daemon.url.removeprefix("unix://")) != 0
