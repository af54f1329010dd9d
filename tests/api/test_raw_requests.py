"""Bytes that no client of ours would send, and clients that never end what they began."""

import http.client
import random
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from daemon_harness.daemon import PATIENCE_S, Daemon, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PING = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
CREATE = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
NOBODY = b'{"Image":"nobody"}'
CHUNKED = CREATE + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"12\r\n" + NOBODY + b"\r\n0\r\n"
CROWD = 100


def get(path: bytes, more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: d\r\n" + more + b"\r\n"


def create(body: bytes, more: bytes = b"") -> bytes:
    return CREATE + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


# What is sent, and the statuses that are answered; a ping behind it shows whether the connection goes on.
RAW: dict[str, tuple[bytes, list[int]]] = {
    "sent ahead": (3 * PING + 2 * create(NOBODY), [200, 200, 200, 404, 404, 200]),
    "a body that nobody reads": (get(b"/_ping", b"Content-Length: 5\r\n") + b"hello", [200, 200]),
    "trailers": (CHUNKED + CHUNK + b"X: 1\r\nY: 2\r\n\r\n", [404, 200]),
    "extensions of chunks": (CHUNKED + b"12;a=b\r\n" + CHUNK[4:] + b"\r\n", [404, 200]),
    "too many trailers": (CHUNKED + CHUNK + b"X: 1\r\n" * 1000, [400]),
    "a chunk without a size": (CHUNKED + b"zz\r\n", [400]),
    "a chunk of less than nothing": (CHUNKED + b"-1\r\n", [400]),
    "a chunk of more than 64 bits": (CHUNKED + b"f" * 17 + b"\r\n", [400]),
    "a chunk longer than it says": (CHUNKED + b"5\r\n" + NOBODY, [400]),
    "two lengths": (create(NOBODY, b"Content-Length: 5\r\n"), [400]),
    "one length twice": (create(NOBODY, b"Content-Length: 18\r\n"), [404, 200]),
    "a length and chunks": (create(NOBODY, b"Transfer-Encoding: chunked\r\n"), [400]),
    "a negative length": (CREATE + b"Content-Length: -1\r\n\r\n", [400]),
    "a length of more than 64 bits": (CREATE + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", [400]),
    "another encoding": (CREATE + b"Transfer-Encoding: gzip\r\n\r\n", [501]),
    "absolute form": (get(b"http://other:1/v1.50/_ping?x"), [200, 200]),
    "a tunnel": (b"CONNECT other:80 HTTP/1.1\r\nHost: d\r\n\r\n", [404, 200]),
    "dots": (get(b"/containers/../../etc/passwd") + get(b"/%2e%2e/%2e%2e/etc/passwd"), [404, 404, 200]),
    "a slash in a name": (get(b"/containers/a%2f..%2fb/json"), [404, 200]),
    "a zero byte in a name": (get(b"/containers/a%00b/json"), [404, 200]),
    "a line in a name": (get(b"/containers/a%0d%0aX:1/json"), [404, 200]),
    "a name that is no text": (get(b"/containers/%ff%ed%a0%80/json"), [404, 200]),
    "a zero byte in a path": (get(b"/_pi\0ng"), [400]),
    "a zero byte in a header": (get(b"/_ping", b"X: a\0b\r\n"), [400]),
    "no host": (b"GET /_ping HTTP/1.1\r\n\r\n", [400]),
    "no request": (b"\x16\x03\x01\0\xc8\x01" + bytes(200), [400]),
    "another protocol": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505]),
    "a head beyond the limit": (get(b"/_ping", b"X: " + b"a" * 2_000_000 + b"\r\n"), [431]),
    "parameters beyond the limit": (get(b"/info?" + b"a=1&" * 2000), [400]),
    "JSON without an end to its depth": (create(b'{"Image":' + b"[" * 50_000), [400, 200]),
    "a number without an end": (create(b'{"Image":"nobody","X":' + b"9" * 50_000 + b"}"), [400, 200]),
    "numbers that are none": (create(b'{"Image":"nobody","X":NaN}'), [400, 200]),
    "JSON that is no text": (create(b'{"Image":"nobody","Labels":{"a":"\xff\\ud800"}}'), [404, 200]),
    "a key twice": (create(b'{"Image":"Bad Name","Image":"nobody"}'), [404, 200]),
    "something behind it": (create(NOBODY + b" x"), [400, 200]),
    "a web page's form": (create(b"a=b", b"Content-Type: text/plain\r\n"), [400, 200]),
}  # fmt: skip


def test_what_is_no_request_is_refused_and_what_is_one_is_answered(daemon: Daemon) -> None:
    with nothing_is_kept(daemon):
        wrong = {
            what: (statuses, found)
            for what, (sent, statuses) in RAW.items()
            if (found := answered(daemon, sent + PING, len(statuses))) != statuses
        }
        assert wrong == {}


def answered(daemon: Daemon, sent: bytes, count: int) -> list[int]:
    """Statuses: so many, or those up to the end of the connection."""
    with closing(connect(daemon)) as client:
        said = b""
        try:
            client.sendall(sent)
            while data := client.recv(65536):
                said += data
                if len(statuses_of(said)) >= count:
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass
        return statuses_of(said)


def statuses_of(said: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def connect(daemon: Daemon) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE_S)
    client.connect(daemon.url.removeprefix("unix://"))
    return client


def test_clients_that_never_end_their_requests_hold_up_nobody(daemon: Daemon) -> None:
    begun = (b"GET /_pi", PING[:-2], CREATE, create(NOBODY)[:-5], CHUNKED + b"12\r\n{")
    with nothing_is_kept(daemon), ExitStack() as stack:
        slow = [
            (stack.enter_context(closing(connect(daemon))), begun[number % len(begun)])
            for number in range(CROWD)
        ]
        for client, sent in slow:
            client.sendall(sent)
        # A byte each now and then is what keeps such clients alive elsewhere.
        for _ in range(3):
            for client, sent in slow:
                client.sendall(b"a" if sent.endswith(b"\r\n") or sent == begun[0] else b" ")
            assert pinged(daemon) == 200
        assert daemon.docker("run", "--rm", "busybox", "echo", "served").out == "served\n"


H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
H2_SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def upgrade(method: bytes, path: bytes, protocol: bytes, *more: bytes) -> bytes:
    wishes = (b"Host: d", b"Connection: Upgrade", b"Upgrade: " + protocol, *more)
    return method + b" " + path + b" HTTP/1.1\r\n" + b"\r\n".join(wishes) + b"\r\n\r\n"


def h2_junk(dice: random.Random) -> bytes:
    """Frames of HTTP/2 of all kinds and none, with lengths that are right or not."""
    out = dice.choice([H2_PREFACE + H2_SETTINGS, H2_SETTINGS, b""])
    for _ in range(dice.randint(1, 10)):
        payload = dice.randbytes(dice.choice([0, 1, 4, 5, 6, 8, 16, 300]))
        length = dice.choice([len(payload)] * 4 + [16384, 2**24 - 1])
        kind, flags, stream = (
            dice.randint(0, 12),
            dice.getrandbits(8),
            dice.choice([0, 1, 3, 2**31]),
        )
        out += struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
        out += payload
    return out + dice.randbytes(dice.choice([0, 0, 50]))


def websocket_junk(dice: random.Random) -> bytes:
    """Frames of all kinds, masked or not, some longer than they can be."""
    out = b""
    for _ in range(dice.randint(1, 6)):
        payload = dice.randbytes(dice.choice([0, 1, 5, 125]))
        masked = dice.choice([0x80, 0x80, 0x80, 0])
        head = bytes([dice.choice([0x81, 0x82, 0x02, 0x00, 0x88, 0x89, 0x8A, 0x83, 0xF1])])
        if dice.random() < 0.2:
            head += bytes([masked | 127]) + struct.pack(">Q", dice.choice([2**40, 2**63]))
        else:
            head += bytes([masked | len(payload)])
        out += head + (dice.randbytes(4) if masked else b"") + payload
    return out


@pytest.mark.parametrize("seed", range(3))
def test_what_comes_after_an_upgrade_may_be_anything(daemon: Daemon, seed: int) -> None:
    daemon.cli(
        "run", "-d", "-i", "--name", f"reader{seed}", "busybox", "sh", "-c", "cat >/dev/null"
    )
    dice = random.Random(seed)
    key = b"Sec-WebSocket-Key: " + b"AAAAAAAAAAAAAAAAAAAAAA=="
    socket_of = b"/containers/reader%d/attach/ws?stream=1&stdin=1&stdout=1" % seed
    with nothing_is_kept(daemon):
        for number in range(20):
            session = b"X-Docker-Expose-Session-Uuid: s%d-%d" % (seed, number)
            doors = (
                (upgrade(b"POST", b"/session", b"h2c", session), h2_junk(dice)),
                (upgrade(b"POST", b"/grpc", b"h2c"), h2_junk(dice)),
                (
                    upgrade(b"GET", socket_of, b"websocket", b"Sec-WebSocket-Version: 13", key),
                    websocket_junk(dice),
                ),
            )
            for head, junk in doors:
                with closing(connect(daemon)) as client:
                    client.sendall(head)
                    assert client.recv(9999).startswith(b"HTTP/1.1 101 ")
                    with suppress(BrokenPipeError, ConnectionResetError):
                        client.sendall(junk)
        assert daemon.state(f"reader{seed}")["Running"]
    daemon.cli("rm", "-f", f"reader{seed}")


def pinged(daemon: Daemon) -> int:
    connection: http.client.HTTPConnection
    with daemon.connect() as connection:
        connection.request("GET", "/_ping")
        return connection.getresponse().status


@contextmanager
def nothing_is_kept(daemon: Daemon) -> Iterator[None]:
    """No descriptor, no thread beyond those that wait for work, no complaint."""
    assert pinged(daemon) == 200
    before = held(daemon)
    yield
    until("the daemon lets go of all of them", lambda: held(daemon) <= before + 5)
    assert pinged(daemon) == 200
    assert not daemon.complaints()


def held(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
