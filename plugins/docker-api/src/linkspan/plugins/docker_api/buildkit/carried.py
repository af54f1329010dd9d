"""A connection that is carried by a gRPC call: ``Control/Session``, a session inside of ``POST /grpc``."""

import trio

from linkspan.plugins.docker_api.buildkit.grpc import Call, GrpcError
from linkspan.plugins.docker_api.buildkit.wire import Message, message
from linkspan.sdk.http import Duplex


class CarriedConnection(Duplex):
    """The bytes that come and go as messages of a call (``BytesMessage``)."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def start(self) -> None:
        """Send the head of the call's answer."""
        if not self._call.begun:
            await self._call.begin()

    async def receive(self) -> bytes:
        """The bytes that are there; ``b""`` when the caller has ended the call."""
        try:
            while found := await self._call.receive():
                if data := b"".join(Message(each).data(1) for each in found):
                    return data
        except GrpcError:
            pass  # the caller has gone
        return b""

    async def send(self, *parts: bytes) -> None:
        """Send parts as one message. Raises trio.BrokenResourceError when the caller has gone."""
        try:
            await self._call.send(message({1: b"".join(parts)}))
        except GrpcError as error:
            raise trio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """Nothing: the call ends when whoever serves it is done."""
