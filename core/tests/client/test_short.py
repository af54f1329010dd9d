"""The short client: requests, answers, and five reasons why nobody answers."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linkspan.core.client.address import Address
from linkspan.core.client.errors import ApiError, ConnectionLost, Unreachable
from linkspan.core.client.frames import Demultiplexer, demultiplex
from linkspan.core.client.resolve import resolve_address
from linkspan.core.client.short import Api


def test_json_goes_and_comes(fake: Any) -> None:
    fake.on("POST", "/things", {"Id": "x"}, 201)
    fake.on("DELETE", "/things/a%2Fb", None, 204)
    with fake.running():
        api = Api(Address(fake.url))
        query = {"all": True, "limit": None, "filters": {"label": ["a=b"]}, "t": [1, 2]}
        assert api.post("/things", query, {"Name": "é"}) == {"Id": "x"}
        assert api.delete("/things/a%2Fb") is None
    request = fake.asked("POST", "/things")
    assert request.json == {"Name": "é"}
    assert request.query == {"all": "1", "filters": '{"label": ["a=b"]}', "t": "2"}
    assert request.headers["content-type"] == "application/json"


def test_a_chunked_answer_comes_as_it_is_written(fake: Any) -> None:
    def handler(_request: Any, connection: Any) -> None:
        connection.head(200, {"Transfer-Encoding": "chunked"})
        connection.chunk('{"a": "é'.encode()[:-1])
        connection.chunk('é"}{"b"'.encode()[1:])
        connection.chunk(b': 2}\n{"c": 3}')
        connection.sock.sendall(b"0\r\n\r\n")

    fake.on("GET", "/events", handler)
    with fake.running(), Api(Address(fake.url)).open("GET", "/events") as answer:
        assert list(answer.json_lines()) == [{"a": "é"}, {"b": 2}, {"c": 3}]


def test_a_body_without_length_ends_with_the_connection(fake: Any) -> None:
    def handler(_request: Any, connection: Any) -> None:
        connection.head(200, {})
        connection.sock.sendall(b"[1, 2]")

    fake.on("GET", "/x", handler)
    with fake.running():
        assert Api(Address(fake.url)).get("/x") == [1, 2]


def test_a_refusal_carries_status_message_code_and_help(fake: Any) -> None:
    fake.on("GET", "/x", {"message": "no such thing", "code": "gone", "help": "look"}, 404)
    with fake.running(), pytest.raises(ApiError, match="no such thing") as caught:
        Api(Address(fake.url)).get("/x")
    assert (caught.value.status, caught.value.code, caught.value.help) == (404, "gone", "look")


def test_a_refusal_without_json_shows_its_text(fake: Any) -> None:
    def handler(_request: Any, connection: Any) -> None:
        connection.head(500, {"Content-Length": "4"})
        connection.sock.sendall(b"oops")

    fake.on("GET", "/x", handler)
    with fake.running(), pytest.raises(ApiError, match="oops"):
        Api(Address(fake.url)).get("/x")


def test_a_long_upload_that_is_refused_early_shows_the_reason(fake: Any, tmp_path: Path) -> None:
    # Refuses after the head, without reading the body.
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    if (pid := os.fork()) == 0:
        sock, _ = listener.accept()
        sock.recv(4096)
        body = b'{"message": "too large"}'
        sock.sendall(b"HTTP/1.1 413 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        sock.shutdown(socket.SHUT_RD)
        os._exit(0)
    listener.close()

    def pieces() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(65536)

    with pytest.raises(ApiError, match="too large"):
        Api(Address(f"unix://{path}")).open("POST", "/build", upload=pieces())
    os.waitpid(pid, 0)


def cause(api: Api) -> tuple[str, str, str]:
    with pytest.raises(Unreachable) as caught:
        api.get("/x")
    return caught.value.cause, caught.value.reason, caught.value.help


def test_no_socket(tmp_path: Path) -> None:
    found = cause(Api(Address(f"unix://{tmp_path}/absent")))
    assert found == ("no-socket", "there is no such socket", "linkspan daemon start")


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    kind, reason, _ = cause(Api(Address(f"unix://{path}")))
    assert kind == "refused"
    assert "no daemon listens on it" in reason


def test_a_daemon_that_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        kind, reason, _ = cause(Api(Address(f"unix://{tmp_path}/s"), silence_s=0.05))
    assert (kind, reason) == ("silent", "the daemon took the request and says nothing for 0.05s")


def test_something_else_that_listens_there(fake: Any) -> None:
    fake.on("GET", "/x", lambda _request, connection: connection.sock.sendall(b"SSH-2.0-x\r\n"))
    with fake.running():
        assert cause(Api(Address(fake.url)))[0] == "version"


def test_a_daemon_of_another_version(fake: Any) -> None:
    message = "client version 1.50 is too new. Maximum supported API version is 1.41"
    fake.on("GET", "/x", {"message": message}, 400)
    with fake.running():
        kind, reason, _ = cause(Api(Address(fake.url)))
    assert kind == "version"
    assert message in reason


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to become somebody else")
def test_a_socket_that_is_closed_to_this_user(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o660)
        for folder in (path.parent, *path.parent.parents):
            if folder.stat().st_mode & 0o001 == 0:
                folder.chmod(folder.stat().st_mode | 0o001)
        code = (
            "import grp, os, pwd, sys\n"
            "from linkspan.core.client.short import Api\n"
            "from linkspan.core.client.address import Address\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: Api(Address('unix://' + sys.argv[1])).get('/x')\n"
            "except Exception as exc: print(exc.cause, exc.reason)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
    assert done.stdout.startswith("permission you (nobody:")
    assert "may not open the socket (root:root, 0660)" in done.stdout


def test_a_daemon_that_goes_away_in_the_middle(fake: Any) -> None:
    fake.on("GET", "/x", lambda _r, connection: connection.head(200, {"Content-Length": "10"}))
    fake.on("GET", "/y", lambda _r, _connection: None)
    with fake.running():
        with pytest.raises(ConnectionLost, match="in the middle"):
            Api(Address(fake.url)).get("/x")
        with pytest.raises(ConnectionLost, match="without an answer"):
            Api(Address(fake.url)).get("/y")


def test_the_daemon_is_started_when_nobody_answers_and_only_then(fake: Any) -> None:
    started: list[str] = []
    fake.on("GET", "/x", {"ok": 1})

    def start(address: Address) -> None:
        started.append(address.url)
        context.__enter__()

    context = fake.running()
    api = Api(Address(fake.url, autostart=True), start=start)
    try:
        assert api.get("/x") == api.get("/x") == {"ok": 1}
    finally:
        context.__exit__(None, None, None)
    assert started == [fake.url]
    with pytest.raises(Unreachable):
        Api(Address(fake.url, autostart=False), start=start).get("/x")
    assert len(started) == 1


def test_the_address_comes_from_option_environment_config_or_default(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[daemon]\nhost = ["unix:///from/config.sock"]\nautostart = false\n')
    environ = {"LINKSPAN_HOST": "unix:///from/env.sock", "LINKSPAN_CONFIG": str(config)}
    named = resolve_address("unix:///a", "", environ)
    assert (named.url, named.config, named.autostart) == ("unix:///a", str(config), False)
    assert resolve_address("", "", environ).url == "unix:///from/env.sock"
    del environ["LINKSPAN_HOST"]
    found = resolve_address("", "", environ)
    assert (found.url, found.config, found.autostart) == (
        "unix:///from/config.sock",
        str(config),
        False,
    )
    config.write_text(
        '[daemon]\nhost = ["tcp://0.0.0.0:2376", "unix:///a.sock", "unix:///b.sock"]\n'
    )
    assert resolve_address("", "", environ).url == "unix:///a.sock"
    config.write_text('[daemon]\nhost = ["tcp://0.0.0.0:2376"]\n')
    assert resolve_address("", "", environ).url == "tcp://0.0.0.0:2376"
    assert resolve_address("/tmp/x.sock", "", {}).path == "/tmp/x.sock"
    config.write_text("broken = [")
    assert resolve_address("", str(config), {}).url == "unix:///run/linkspan/linkspan.sock"


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("size", [1, 3, 8, 9, 1000])
def test_frames_may_be_cut_anywhere(size: int) -> None:
    data = frame(1, b"hello") + frame(2, b"") + frame(2, b"err") + frame(1, b"x" * 20)
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    out: dict[int, bytes] = {1: b"", 2: b""}
    for stream, payload in demultiplex(pieces):
        out[stream] += payload
    assert out == {1: b"hello" + b"x" * 20, 2: b"err"}


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="not a stream frame"):
        list(Demultiplexer().feed(b"plain text"))
