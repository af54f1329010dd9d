import contextlib
import random

import hpack
import pytest
import trio
import trio.testing
from buildkit_client import Client, MemoryDuplex, connected, pair

from linkspan.plugins.docker_api.buildkit import frames
from linkspan.plugins.docker_api.buildkit.grpc import (
    DEADLINE_EXCEEDED,
    NOT_FOUND,
    UNAVAILABLE,
    UNIMPLEMENTED,
    Call,
    GrpcError,
    call_once,
    calling,
    framed,
    serve,
)
from linkspan.plugins.docker_api.buildkit.http2 import Connection
from linkspan.plugins.docker_api.buildkit.wire import message

BIG = bytes(range(256)) * 40_000  # 10 MB: more than any window


async def echo(call: Call) -> None:
    while messages := await call.receive():
        await call.send(*messages)


async def forever(call: Call) -> None:
    await trio.sleep_forever()


class Served:
    """A connection whose other side serves some methods."""

    def __init__(self, nursery: trio.Nursery) -> None:
        near, self.far = pair()
        methods = {"/t/echo": echo, "/t/forever": forever}
        self.server = Connection(self.far, is_client=False, handle=serve(methods))
        self.client = Connection(near, is_client=True)
        self.nursery = nursery

    async def start(self) -> Connection:
        self.nursery.start_soon(self.server.run)
        await self.nursery.start(self.client.run)
        return self.client


async def test_calls_go_side_by_side_beyond_every_window() -> None:
    async with trio.open_nursery() as nursery:
        connection = await Served(nursery).start()

        async def one(data: bytes) -> None:
            async with calling(connection, "/t/echo") as call, trio.open_nursery() as inner:
                inner.start_soon(call.send, data)
                got: list[bytes] = []
                while not got:
                    got = await call.receive()
                assert got == [data]
                await call.end()
                assert await call.receive() == []

        async with trio.open_nursery() as calls:
            calls.start_soon(one, BIG)
            for size in range(20):
                calls.start_soon(one, bytes(size))
        nursery.cancel_scope.cancel()


async def test_a_call_says_why_it_failed() -> None:
    async with connected(Client()) as connection:
        with pytest.raises(GrpcError, match="no secret x: 100 % sure") as caught:
            await call_once(
                connection, "/moby.buildkit.secrets.v1.Secrets/GetSecret", message({1: "x"})
            )
        assert caught.value.status == NOT_FOUND
        with pytest.raises(GrpcError, match="unknown method nothing for service a") as caught:
            await call_once(connection, "/a/nothing", b"")
        assert caught.value.status == UNIMPLEMENTED


async def test_a_call_has_its_deadline() -> None:
    async with trio.open_nursery() as nursery:
        connection = await Served(nursery).start()
        async with calling(connection, "/t/forever", [("grpc-timeout", "10m")]) as call:
            with pytest.raises(GrpcError) as caught:
                await call.receive()
        assert caught.value.status == DEADLINE_EXCEEDED
        nursery.cancel_scope.cancel()


async def test_open_calls_fail_when_the_other_side_goes() -> None:
    async with trio.open_nursery() as nursery:
        served = Served(nursery)
        connection = await served.start()
        async with calling(connection, "/t/forever") as call:
            with trio.CancelScope() as scope:
                nursery.start_soon(served.far.close)
                with pytest.raises(GrpcError) as caught:
                    await call.receive()
            assert not scope.cancelled_caught
        assert caught.value.status == UNAVAILABLE
        with pytest.raises(GrpcError):
            await call_once(connection, "/t/echo", b"")


async def test_what_is_given_up_ends_at_the_other_side() -> None:
    ended = trio.Event()

    async def watched(call: Call) -> None:
        try:
            while await call.receive():
                pass
        except GrpcError:
            ended.set()
            raise

    near, far = pair()
    server = Connection(far, is_client=False, handle=serve({"/t/watched": watched}))
    client = Connection(near, is_client=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await nursery.start(client.run)
        async with calling(client, "/t/watched") as call:
            await call.send(b"x")
        await ended.wait()
        nursery.cancel_scope.cancel()


def head(*headers: tuple[str, str]) -> bytes:
    block: bytes = hpack.Encoder().encode(list(headers))
    return block


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.frame(kind, flags, stream, payload)


ASKING = frame(frames.HEADERS, 4, 1, head((":method", "POST"), (":path", "/t/echo")))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(20), frames.PROTOCOL_ERROR),
        (frames.PREFACE + b"\xff\xff\xff\0\0\0\0\0\1", frames.FRAME_SIZE_ERROR),
        (frames.PREFACE + frame(frames.SETTINGS, 0, 0, b"123"), frames.FRAME_SIZE_ERROR),
        (frames.PREFACE + frame(frames.PING, 0, 0, b"123"), frames.FRAME_SIZE_ERROR),
        (frames.PREFACE + frame(frames.DATA, 0, 7, b"x"), frames.PROTOCOL_ERROR),
        (frames.PREFACE + frame(frames.DATA, 0, 0, b"x"), frames.PROTOCOL_ERROR),
        (frames.PREFACE + frame(frames.HEADERS, 4, 2, head((":path", "/"))), frames.PROTOCOL_ERROR),
        (frames.PREFACE + frame(frames.HEADERS, 4, 1, b"\xff" * 30), frames.COMPRESSION_ERROR),
        (frames.PREFACE + frame(frames.CONTINUATION, 4, 1, b""), frames.PROTOCOL_ERROR),
        (
            frames.PREFACE
            + frame(frames.HEADERS, 0, 1, b"")
            + frame(frames.CONTINUATION, 0, 1, bytes(16384)) * 5,
            frames.ENHANCE_YOUR_CALM,
        ),
        (frames.PREFACE + ASKING + frame(frames.DATA, 8, 1, b"\x09x"), frames.PROTOCOL_ERROR),
        (
            frames.PREFACE + frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
            frames.FLOW_CONTROL_ERROR,
        ),
        (frames.PREFACE + frame(frames.PUSH_PROMISE, 4, 1, b""), frames.PROTOCOL_ERROR),
        (
            frames.PREFACE
            + b"".join(
                frame(frames.HEADERS, 4, 2 * n + 1, head((":path", "/t/forever")))
                + frame(frames.RST_STREAM, 0, 2 * n + 1, bytes(4))
                for n in range(1001)
            ),
            frames.ENHANCE_YOUR_CALM,
        ),
    ],
    ids=range(14),
)
async def test_a_broken_connection_is_ended_with_its_reason(sent: bytes, code: int) -> None:
    near, far = pair()
    got = b""

    async def write(duplex: MemoryDuplex) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await duplex.send(sent)

    async with trio.open_nursery() as nursery:
        methods = serve({"/t/echo": echo, "/t/forever": forever})

        async def run() -> None:
            await Connection(near, is_client=False, handle=methods).run()
            await near.close()

        nursery.start_soon(run)
        nursery.start_soon(write, far)
        while data := await far.receive():
            got += data
    kinds = list(frames.FrameReader().feed(got))
    kind, _, _, payload = kinds[-1]
    assert kind == frames.GOAWAY
    assert int.from_bytes(payload[4:8], "big") == code


async def test_more_data_than_was_allowed_ends_the_connection() -> None:
    near, far = pair()
    got = b""

    async def write() -> None:
        try:
            await far.send(
                frames.PREFACE, frame(frames.HEADERS, 4, 1, head((":path", "/t/forever")))
            )
            for _ in range(80):
                await far.send(frame(frames.DATA, 0, 1, bytes(16384)))
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            handle = serve({"/t/forever": forever})
            await Connection(near, is_client=False, handle=handle).run()
            await near.close()

        nursery.start_soon(run)
        nursery.start_soon(write)
        while data := await far.receive():
            got += data
    *_, (kind, _, _, payload) = frames.FrameReader().feed(got)
    assert (kind, int.from_bytes(payload[4:8], "big")) == (
        frames.GOAWAY,
        frames.FLOW_CONTROL_ERROR,
    )


async def test_an_answer_counts_though_the_call_is_reset_behind_it() -> None:
    """Go's servers do so when they have answered before the caller has ended."""
    near, far = pair()
    client = Connection(near, is_client=True)
    answer = (
        frame(frames.SETTINGS, 0, 0)
        + frame(frames.HEADERS, 4, 1, head((":status", "200")))
        + frame(frames.DATA, 0, 1, framed(b"done"))
        + frame(frames.HEADERS, 5, 1, head(("grpc-status", "0")))
        + frame(frames.RST_STREAM, 0, 1, bytes(4))
    )

    async def drain() -> None:
        while await far.receive():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        await nursery.start(client.run)
        async with calling(client, "/t/x") as call:
            await far.send(answer)
            await trio.testing.wait_all_tasks_blocked()
            await call.send(b"late")
            await call.end()
            assert await call.one() == b"done"
        nursery.cancel_scope.cancel()


def conversation(chance: random.Random) -> bytes:
    """Frames of a client, most of them in order, cut and joined at random."""
    calls = [
        frame(frames.HEADERS, 4, 2 * n + 1, head((":method", "POST"), (":path", "/t/echo")))
        + frame(frames.DATA, 1, 2 * n + 1, framed(bytes(n)))
        for n in range(3)
    ]
    odd = [
        frame(kind, chance.choice((0, 1, 4, 5, 8, 0x20)), chance.choice((0, 1, 2, 3, 9)), payload)
        for kind in range(11)
        for payload in (b"", bytes(4), bytes(8), head((":path", "/t/forever")), chance.randbytes(9))
    ]
    data = bytearray(frames.PREFACE + b"".join([*calls, *chance.sample(odd, 4)]))
    for _ in range(chance.randint(0, 3)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: chance.randint(1, len(data) + 40)])


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("is_client", [True, False])
async def test_whatever_comes_the_connection_ends_in_order(seed: int, is_client: bool) -> None:
    chance = random.Random(seed)
    near, far = pair()
    data = conversation(chance)
    connection = Connection(
        near, is_client=is_client, handle=serve({"/t/echo": echo, "/t/forever": forever})
    )

    async def drain() -> None:
        while await far.receive():
            pass

    async def ask() -> None:
        with contextlib.suppress(GrpcError):
            async with calling(connection, "/t/echo") as call:
                await call.send(b"x")
                await call.receive()

    async with trio.open_nursery() as nursery:
        await nursery.start(connection.run)
        nursery.start_soon(drain)
        if is_client:
            nursery.start_soon(ask)
        with contextlib.suppress(trio.BrokenResourceError):
            await far.send(data[len(frames.PREFACE) :] if is_client else data)
        await trio.testing.wait_all_tasks_blocked()
        await far.close()
    assert connection.closed
