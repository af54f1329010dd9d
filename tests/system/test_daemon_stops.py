"""SIGTERM to a busy daemon: requests in flight end, streams end in order, containers go on."""

import hashlib
import http.client
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
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


def test_the_registrys_requests_in_flight_end_before_the_daemon_does(
    new_daemon: Callable[..., Daemon],
) -> None:
    """An upload and a download that are half done when the whole daemon gets SIGTERM."""
    daemon = new_daemon()
    _drain(daemon, "60s")
    daemon.start()
    blob = os.urandom(30_000_000)  # more than the sockets on the way can hold
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    with ExitStack() as stack:
        pushed = _registry(stack, daemon)
        pushed.request("POST", f"/v2/app/blobs/uploads/?digest={digest}", body=blob)
        assert pushed.getresponse().status == 201
        pulling = _registry(stack, daemon)
        pulling.request("GET", f"/v2/app/blobs/{digest}")
        coming = pulling.getresponse()
        first = coming.read(1_000_000)
        late = os.urandom(4_000_000)  # it is written in pieces of a megabyte
        late_digest = "sha256:" + hashlib.sha256(late).hexdigest()
        pushing = _registry(stack, daemon)
        pushing.putrequest("POST", f"/v2/app/blobs/uploads/?digest={late_digest}")
        pushing.putheader("Content-Length", str(len(late)))
        pushing.endheaders(late[:2_500_000])
        until("the upload has begun", lambda: _half_uploaded(daemon, len(late)))

        process = daemon.process
        process.send_signal(signal.SIGTERM)
        until("the registry lets nobody in", lambda: _closed(daemon.registry))
        assert process.poll() is None
        pushing.send(late[2_500_000:])
        answer = pushing.getresponse()
        assert (answer.status, answer.getheader("Docker-Content-Digest")) == (201, late_digest)
        assert first + coming.read() == blob
    assert process.wait(60) == 0
    assert not daemon.complaints()

    daemon.start()
    with ExitStack() as stack:
        there = _registry(stack, daemon)
        there.request("GET", f"/v2/app/blobs/{late_digest}")
        assert there.getresponse().read() == late


def test_a_registrys_request_that_does_not_end_is_cut_off_and_the_daemon_ends(
    new_daemon: Callable[..., Daemon],
) -> None:
    daemon = new_daemon()
    _drain(daemon, "200ms")
    daemon.start()
    with ExitStack() as stack:
        pushing = _registry(stack, daemon)
        pushing.putrequest("POST", "/v2/app/blobs/uploads/?digest=sha256:" + "0" * 64)
        pushing.putheader("Content-Length", "4000000")
        pushing.endheaders(bytes(2_500_000))
        until("the upload has begun", lambda: _half_uploaded(daemon, 4_000_000))
        assert daemon.stop() == 0
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            pushing.getresponse()
    daemon.start()


def _drain(daemon: Daemon, time: str) -> None:
    """Give requests to the daemon's registry so long to end."""
    listen = f'listen = "{daemon.registry}"'
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace(listen, f'{listen}\ndrain = "{time}"'))


def _registry(stack: ExitStack, daemon: Daemon) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(daemon.registry, timeout=60)
    stack.callback(connection.close)
    return connection


def _half_uploaded(daemon: Daemon, whole: int) -> bool:
    """Whether the registry has some of an upload of this size on its disk."""
    sizes = []
    for path in (daemon.data_root / "registry-server").rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                sizes.append(path.stat().st_size)
    return any(0 < size < whole for size in sizes)


def _closed(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) != 0


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
