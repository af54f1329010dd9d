"""The attached end of conmon's socket, against a socket of the test's own."""

import socket

import trio

from linkspan.plugins.oci_runtime.attach import AttachedStreams
from linkspan.sdk.model.process import Chunk, StreamKind


async def test_output_is_not_lost_when_the_process_leaves_its_input() -> None:
    ours, conmon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.setblocking(False)
        streams = AttachedStreams(ours)
        await streams.send(b"nobody reads this")
        conmon.send(b"\x02said before")
        conmon.close()
        with trio.fail_after(5):
            assert await streams.receive() == Chunk(StreamKind.STDOUT, b"said before")
            assert await streams.receive() is None
