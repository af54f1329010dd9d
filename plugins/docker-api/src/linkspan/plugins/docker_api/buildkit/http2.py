"""HTTP/2 on a connection that was taken over, for either side (RFC 9113).

BuildKit's clients answer our calls on one such connection and call us on another. What is here is what gRPC
needs: streams with headers, data under flow control, trailers, resets. How much may arrive before it is read is
bounded by the windows that we grant.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, cast

import hpack
import trio

from linkspan.plugins.docker_api.buildkit import frames
from linkspan.plugins.docker_api.buildkit.frames import FrameReader, Http2Error
from linkspan.sdk.http import Duplex

_STREAM_WINDOW: Final = 1 << 20
_CONNECTION_WINDOW: Final = 8 << 20
_MAX_HEADER_BYTES: Final = 64 << 10
_MAX_STREAMS: Final = 128
_MAX_RESETS: Final = 1000
_MAX_SOON: Final = 10_000
# Go writes each message by itself: after some thin pieces in a row, more may gather for a moment.
_THIN_BYTES: Final = 4096
_THIN_READS: Final = 4
_GATHER_S: Final = 0.001

Headers = Mapping[str, str]
"""As they came; several values of one name are joined by commas."""
SentHeaders = Sequence[tuple[str, str]]


class StreamClosed(Exception):
    """The stream, or the whole connection, ended before it was complete."""


class Stream:
    """One request and its answer.

    Attributes:
        head: Headers that have come; None before.
        trailers: What came behind the data, or is all that came.
    """

    def __init__(self, connection: "Connection", number: int, send_window: int) -> None:
        self._connection = connection
        self.number = number
        self.head: Headers | None = None
        self.trailers: Headers = {}
        self.send_window = send_window
        self.receive_window = _STREAM_WINDOW
        self.ended_in = False
        self.ended_out = False
        self._pieces: list[bytes] = []
        self._uncredited = 0
        self._failure = ""
        self._news = trio.Event()

    # Called by the connection

    def wake(self) -> None:
        """Something has changed for whoever waits."""
        self._news.set()

    def fail(self, why: str) -> None:
        """It will never be complete. If our call has been answered, only what we still send is of no use."""
        if self.ended_in and self._connection.is_client:
            self.ended_out = True
        elif not self._failure:
            self._failure = why or "the stream was closed"
        self.wake()

    def take_headers(self, headers: Headers, *, last: bool) -> None:
        """Headers have come."""
        if self.head is None:
            self.head = headers
        if last:
            self.trailers = headers
            self.ended_in = True
        self.wake()

    def take_data(self, data: bytes, size: int, *, last: bool) -> None:
        """Data has come; ``size`` counts its padding, too."""
        self.receive_window -= size
        if self.receive_window < 0:
            raise Http2Error(frames.FLOW_CONTROL_ERROR, "more data than the window allows")
        if data:
            self._pieces.append(data)
        self._uncredited += size - len(data)
        if last:
            self.ended_in = True
        self.wake()

    # For the stream's user

    async def headers(self) -> Headers:
        """The head, when it has come. Raises StreamClosed."""
        while self.head is None:
            await self._wait()
        return self.head

    async def receive(self) -> bytes:
        """All data that is there, as soon as there is some; empty at the end.

        Raises:
            StreamClosed: It was reset, or the connection is gone.
        """
        while not self._pieces:
            if self.ended_in:
                await trio.lowlevel.checkpoint()
                return b""
            await self._wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._credit(len(data))
        await trio.lowlevel.checkpoint()
        return data

    async def send_headers(self, headers: SentHeaders, *, end: bool = False) -> None:
        """Send a head or trailers. Raises StreamClosed."""
        self._check()
        if self.ended_in and self.ended_out:
            return
        self.ended_out = end
        await self._connection.send_headers(self.number, headers, end=end)
        self._connection.forget_if_done(self)

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send data as the other side's windows allow. Raises StreamClosed."""
        view = memoryview(data)
        while (len(view) or end) and not (self.ended_in and self.ended_out):
            self._check()
            room = min(len(view), self.send_window, self._connection.send_window)
            room = max(0, min(room, self._connection.max_frame_bytes))
            if len(view) and not room:
                await self._wait()
                continue
            piece, view = view[:room], view[room:]
            last = end and not len(view)
            self.send_window -= room
            self._connection.send_window -= room
            flags = frames.END_STREAM if last else 0
            self.ended_out = last
            await self._connection.send(frames.frame(frames.DATA, flags, self.number, bytes(piece)))
            if last:
                break
        self._connection.forget_if_done(self)

    def drain_soon(self, limit_s: float) -> None:
        """See ``Connection.drain_soon``."""
        self._connection.drain_soon(self, limit_s)

    async def reset(self, code: int = frames.CANCEL) -> None:
        """Let go of it; nothing happens if it is complete."""
        if self._failure or (self.ended_in and self.ended_out):
            return
        self.fail("the stream was given up")
        self._connection.forget(self)
        try:
            await self._connection.send(
                frames.frame(frames.RST_STREAM, 0, self.number, frames.numbers(code))
            )
        except StreamClosed:
            return

    def _check(self) -> None:
        if self._failure:
            raise StreamClosed(self._failure)

    async def _wait(self) -> None:
        self._check()
        if self._news.is_set():  # a reader and a writer may wait side by side
            self._news = trio.Event()
        await self._news.wait()
        if not self._pieces and not self.ended_in:
            self._check()

    def _credit(self, size: int) -> None:
        """Say that more may come, once it is worth a frame."""
        self._uncredited += size
        if self._uncredited * 2 >= _STREAM_WINDOW and not self.ended_in:
            more, self._uncredited = self._uncredited, 0
            self.receive_window += more
            update = frames.frame(frames.WINDOW_UPDATE, 0, self.number, frames.numbers(more))
            self._connection.send_soon(update)
        self._connection.credit(size)


class Connection:
    """One connection.

    Args:
        is_client: Whether we ask and the other side answers.
        handle: Answers one stream of the other side's; cancelled when the connection goes.
    """

    def __init__(
        self,
        duplex: Duplex,
        *,
        is_client: bool,
        handle: Callable[[Stream], Awaitable[None]] | None = None,
    ) -> None:
        self._duplex = duplex
        self.is_client = is_client
        self._handle = handle
        self._streams: dict[int, Stream] = {}
        self._next_stream = 1
        self._last_seen = 0
        self._resets = 0
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder(max_header_list_size=_MAX_HEADER_BYTES)
        self._sending_headers = trio.Lock()
        self._block: tuple[int, int, bytes] | None = None  # headers that CONTINUATION goes on with
        self._initial_send_window = frames.INITIAL_WINDOW
        self._receive_window = _CONNECTION_WINDOW
        self._uncredited = 0
        self._nursery: trio.Nursery | None = None
        self._soon: list[bytes] = []
        self._has_soon = trio.Event()
        self.send_window = frames.INITIAL_WINDOW
        self.max_frame_bytes = frames.MAX_FRAME_BYTES
        self.closed = ""
        self._going = ""
        self._thin = 0  # reads in a row that brought little

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the connection to its end; what is open then fails with StreamClosed.

        Started when calls can be made.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._begin()
                nursery.start_soon(self._send_what_waits)
                task_status.started()
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._close("the client has gone")

    async def open(self, headers: SentHeaders) -> Stream:
        """Begin a stream.

        Raises:
            StreamClosed: The connection is gone.
        """
        async with self._sending_headers:
            self._check()
            if self._going:
                raise StreamClosed(self._going)
            stream = Stream(self, self._next_stream, self._initial_send_window)
            self._next_stream += 2
            self._streams[stream.number] = stream
            await self._send_block(stream.number, headers, end=False)
        return stream

    # For streams

    def drain_soon(self, stream: Stream, limit_s: float) -> None:
        """Read a stream to its end while nobody waits for it; let go of it if that takes too long."""
        if self.closed or self._nursery is None:
            return

        async def drain() -> None:
            with suppress(StreamClosed):
                with trio.move_on_after(limit_s):
                    while await stream.receive():
                        pass
                await stream.reset()

        self._nursery.start_soon(drain)

    async def send(self, *parts: bytes) -> None:
        """Send frames. Raises StreamClosed."""
        self._check()
        self._thin = 0  # the answer may be small, and is waited for
        waiting, self._soon = self._soon, []
        try:
            await self._duplex.send(*waiting, *parts)
        except trio.BrokenResourceError as error:
            self._close("the client has gone")
            raise StreamClosed("the client has gone") from error

    async def send_headers(self, number: int, headers: SentHeaders, *, end: bool) -> None:
        """Send a block of headers. Raises StreamClosed."""
        # The table that both sides keep demands that blocks are sent in the order they were encoded in.
        async with self._sending_headers:
            await self._send_block(number, headers, end=end)

    async def _send_block(self, number: int, headers: SentHeaders, *, end: bool) -> None:
        block = self._encoder.encode(list(headers), huffman=False)
        size = self.max_frame_bytes
        pieces = [block[at : at + size] for at in range(0, len(block), size)] or [b""]
        sent = []
        for index, piece in enumerate(pieces):
            kind = frames.CONTINUATION if index else frames.HEADERS
            flags = frames.END_HEADERS if index == len(pieces) - 1 else 0
            if end and not index:
                flags |= frames.END_STREAM
            sent.append(frames.frame(kind, flags, number, piece))
        await self.send(*sent)

    def credit(self, size: int) -> None:
        """So much was read."""
        self._uncredited += size
        if self._uncredited * 2 >= _CONNECTION_WINDOW:
            more, self._uncredited = self._uncredited, 0
            self._receive_window += more
            self.send_soon(frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.numbers(more)))

    def send_soon(self, frame: bytes) -> None:
        """Send a frame without waiting: whoever reads must not wait for the other side to do so, too."""
        self._soon.append(frame)
        self._has_soon.set()

    def _reply(self, frame: bytes) -> None:
        """Send an answer soon.

        Raises:
            Http2Error: The other side makes us answer, and does not read.
        """
        if len(self._soon) >= _MAX_SOON:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "answers are not read")
        self.send_soon(frame)

    async def _send_what_waits(self) -> None:
        try:
            while True:
                await self._has_soon.wait()
                self._has_soon = trio.Event()
                if self._soon:
                    await self.send()
        except StreamClosed:
            return

    def forget(self, stream: Stream) -> None:
        """It is over."""
        self._streams.pop(stream.number, None)

    def forget_if_done(self, stream: Stream) -> None:
        """It may be over."""
        if stream.ended_in and stream.ended_out:
            self.forget(stream)

    def _check(self) -> None:
        if self.closed:
            raise StreamClosed(self.closed)

    def _close(self, why: str) -> None:
        self.closed = self.closed or why
        for stream in self._streams.values():
            stream.fail(why)
        self._streams.clear()

    # Reading

    def _begin(self) -> None:
        own = frames.setting(0x4, _STREAM_WINDOW) + frames.setting(0x3, _MAX_STREAMS)
        own += frames.setting(0x6, _MAX_HEADER_BYTES)
        if self.is_client:
            own += frames.setting(0x2, 0)  # nothing shall be pushed
        more = _CONNECTION_WINDOW - frames.INITIAL_WINDOW
        self.send_soon(
            (frames.PREFACE if self.is_client else b"")
            + frames.frame(frames.SETTINGS, 0, 0, own)
            + frames.frame(frames.WINDOW_UPDATE, 0, 0, frames.numbers(more))
        )

    async def _read(self) -> None:
        reader = FrameReader()
        try:
            rest = b"" if self.is_client else await self._read_preface()
            while True:
                if self._thin > _THIN_READS:
                    await trio.sleep(_GATHER_S)
                data = rest or await self._duplex.receive()
                rest = b""
                if not data:
                    return
                is_thin = len(data) < _THIN_BYTES and self.is_client
                self._thin = self._thin + 1 if is_thin else 0
                for kind, flags, number, payload in reader.feed(data):
                    if kind or flags or self._block is not None:
                        self._take(kind, flags, number, payload)
                    else:
                        self._take_piece(number, payload)
        except Http2Error as error:
            await self._go_away(error)
        except StreamClosed:
            return

    async def _read_preface(self) -> bytes:
        data = b""
        while len(data) < len(frames.PREFACE):
            piece = await self._duplex.receive()
            if not piece:
                raise StreamClosed("the client has gone")
            data += piece
        if not data.startswith(frames.PREFACE):
            raise Http2Error(frames.PROTOCOL_ERROR, "this is not HTTP/2")
        return data[len(frames.PREFACE) :]

    async def _go_away(self, error: Http2Error) -> None:
        self._close(f"the client's HTTP/2 is broken: {error}")
        payload = frames.numbers(self._last_seen, error.code) + str(error).encode()
        try:
            await self._duplex.send(frames.frame(frames.GOAWAY, 0, 0, payload))
        except trio.BrokenResourceError:
            return

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise Http2Error(frames.PROTOCOL_ERROR, "headers are not gone on with")
        match kind:
            case frames.DATA:
                self._take_data(flags, number, payload)
            case frames.HEADERS:
                self._take_block(number, flags, frames.unpadded(flags, payload))
            case frames.CONTINUATION:
                self._go_on(number, flags, payload)
            case frames.RST_STREAM:
                self._take_reset(number, frames.number(payload))
            case frames.SETTINGS:
                self._take_settings(flags, payload)
            case frames.PING:
                if len(payload) != 8:
                    raise Http2Error(frames.FRAME_SIZE_ERROR, "a ping has eight bytes")
                if not flags & frames.ACK:
                    self._reply(frames.frame(frames.PING, frames.ACK, 0, payload))
            case frames.GOAWAY:
                self._take_go_away(payload)
            case frames.WINDOW_UPDATE:
                self._take_window(number, frames.number(payload))
            case frames.PUSH_PROMISE:
                raise Http2Error(frames.PROTOCOL_ERROR, "nothing may be pushed")
            case _:
                pass  # extensions, and priorities, which mean nothing here

    def _take_piece(self, number: int, payload: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.ended_in:
            self._take_data(0, number, payload)
            return
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise Http2Error(frames.FLOW_CONTROL_ERROR, "more data than the window allows")
        stream.take_data(payload, size, last=False)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            raise Http2Error(frames.FLOW_CONTROL_ERROR, "more data than the window allows")
        stream = self._streams.get(number)
        if stream is None or stream.ended_in:
            self._check_known(number)
            self.credit(size)
            return
        data = frames.unpadded(flags & frames.PADDED, payload)
        stream.take_data(data, size, last=bool(flags & frames.END_STREAM))
        if flags & frames.PADDED:
            self.credit(size - len(data))
        self.forget_if_done(stream)

    def _check_known(self, number: int) -> None:
        """What comes late for a stream that is over is no fault; for one that never was it is."""
        newest = self._next_stream - 2 if self.is_client else self._last_seen
        if number == 0 or number > newest:
            raise Http2Error(frames.PROTOCOL_ERROR, f"there is no stream {number}")

    def _take_block(self, number: int, flags: int, block: bytes) -> None:
        if flags & frames.END_HEADERS:
            self._take_headers(number, flags, block)
        else:
            self._block = (number, flags, block)

    def _go_on(self, number: int, flags: int, more: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise Http2Error(frames.PROTOCOL_ERROR, "headers go on that never began")
        _, first, block = self._block
        if len(block) + len(more) > _MAX_HEADER_BYTES or not more:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "headers are too long")
        self._block = None
        self._take_block(number, first | flags & frames.END_HEADERS, block + more)

    def _take_headers(self, number: int, flags: int, block: bytes) -> None:
        try:
            decoded = cast(Iterable[tuple[str, str]], self._decoder.decode(block))
        except (hpack.HPACKError, UnicodeDecodeError) as error:
            raise Http2Error(
                frames.COMPRESSION_ERROR, f"headers cannot be read: {error}"
            ) from error
        headers: dict[str, str] = {}
        for name, value in decoded:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        last = bool(flags & frames.END_STREAM)
        stream = self._streams.get(number)
        if stream is None and not self.is_client and number > self._last_seen:
            self._begin_stream(number, headers, last=last)
            return
        if stream is None:
            self._check_known(number)
            return
        stream.take_headers(headers, last=last)
        self.forget_if_done(stream)

    def _begin_stream(self, number: int, headers: Headers, *, last: bool) -> None:
        """The other side asks."""
        assert self._nursery is not None
        if number % 2 == 0:
            raise Http2Error(frames.PROTOCOL_ERROR, f"stream {number} is not the client's")
        self._last_seen = number
        stream = Stream(self, number, self._initial_send_window)
        if len(self._streams) >= _MAX_STREAMS or self._handle is None:
            self._nursery.start_soon(stream.reset, frames.REFUSED_STREAM)
            return
        self._streams[number] = stream
        stream.take_headers(headers, last=False)
        stream.ended_in = last
        self._nursery.start_soon(self._answer, stream)

    async def _answer(self, stream: Stream) -> None:
        assert self._handle is not None
        try:
            await self._handle(stream)
        except StreamClosed:
            return
        await stream.reset(frames.NO_ERROR)

    def _take_reset(self, number: int, code: int) -> None:
        self._check_known(number)
        self._resets += 1
        if self._resets > _MAX_RESETS:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "too many streams were given up")
        if (stream := self._streams.pop(number, None)) is not None:
            stream.fail(
                "the client has given up the call" if not self.is_client else f"reset {code}"
            )

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            return
        for name, value in frames.settings(payload):
            if name == 0x1:
                self._encoder.header_table_size = min(value, 4096)
            elif name == 0x4:
                if value > frames.MAX_WINDOW:
                    raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window is too large")
                change = value - self._initial_send_window
                self._initial_send_window = value
                for stream in self._streams.values():
                    stream.send_window += change
                    stream.wake()
            elif name == 0x5:
                self.max_frame_bytes = max(frames.MAX_FRAME_BYTES, min(value, 1 << 18))
        self._reply(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _take_window(self, number: int, more: int) -> None:
        more &= frames.MAX_WINDOW
        if not number:
            self.send_window += more
            if self.send_window > frames.MAX_WINDOW or not more:
                raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window is too large")
            for stream in self._streams.values():
                stream.wake()
            return
        self._check_known(number)
        found = self._streams.get(number)
        if found is not None:
            found.send_window += more
            if found.send_window > frames.MAX_WINDOW:
                raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window is too large")
            found.wake()

    def _take_go_away(self, payload: bytes) -> None:
        """No new streams; those that the other side has seen go on."""
        last = int.from_bytes(payload[:4], "big") if len(payload) >= 8 else 0
        if not self.is_client:
            return
        self._going = "the client closes the connection"
        for number, stream in list(self._streams.items()):
            if number > last:
                stream.fail(self._going)
                self.forget(stream)
