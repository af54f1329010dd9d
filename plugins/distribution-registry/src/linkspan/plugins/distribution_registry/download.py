"""A blob's bytes, in one piece for the reader, however often the connection breaks."""

import functools
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import httpx
import trio

from linkspan.plugins.distribution_registry.body import Body
from linkspan.plugins.distribution_registry.faults import read_answer, refusal
from linkspan.plugins.distribution_registry.retry import RETRYABLE_STATUSES
from linkspan.plugins.distribution_registry.session import Call, Session, pull_scope
from linkspan.plugins.distribution_registry.transport import (
    ConnectionLostError,
    Outgoing,
    Transport,
    close_response,
    describe_failure,
)
from linkspan.sdk.errors import DataLoss, NotFound, Unavailable
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.pipes import write_all
from linkspan.sdk.reference import Reference

T = TypeVar("T")

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class BlobDownload(AsyncIterator[bytes]):
    """Iterates over a blob from an offset; opens the next connection where the last one broke.

    The pieces are as the network gave them. Not more bytes are handed out than the descriptor says.
    """

    def __init__(
        self,
        session: Session,
        transport: Transport,
        reference: Reference,
        descriptor: Descriptor,
        credentials: Credentials,
        offset: int,
        *,
        breaks: int | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            breaks: Give up when the connection has broken so often, even if bytes arrived between.
        """
        self._session = session
        self._transport = transport
        self._reference = reference
        self._descriptor = descriptor
        self._credentials = credentials
        self._at = offset
        self._skip = 0
        self._body: Body | None = None
        self._failures = 0
        self._breaks_left = breaks

    @property
    def at(self) -> int:
        """The first byte that is still to come."""
        return self._at

    async def open(self) -> None:
        """Connect, so that a refusal comes before the first byte is asked for."""
        if self._at < self._descriptor.size_bytes or self._descriptor.size_bytes == 0:
            await self._connect()

    async def aclose(self) -> None:
        """Close the connection; may be called at any time, and again."""
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()

    async def __anext__(self) -> bytes:
        part = await self._patiently(self._next_part)
        if part is None:
            raise StopAsyncIteration
        return part

    async def pour(self, pipe: int) -> int:
        """See ``linkspan.sdk.pouring.Pourable``."""
        return await self._patiently(functools.partial(self._pour_part, pipe)) or 0

    async def _patiently(self, take: Callable[[], Awaitable[T]]) -> T | None:
        """What ``take`` gets from a connection, from the next one if need be; None at the end."""
        while True:
            if self._at >= self._descriptor.size_bytes:
                await self._end()
                return None
            try:
                if self._body is None:
                    await self._connect()
                taken = await take()
            except (httpx.TransportError, ConnectionLostError) as error:
                await self._wait_or_give_up(error)
                continue
            if taken:
                return taken

    async def _pour_part(self, pipe: int) -> int:
        assert self._body is not None
        if self._skip or not self._body.is_bare:
            part = await self._next_part()
            await write_all(pipe, part)
            return len(part)
        count = await self._body.pour(pipe)
        if not count:
            raise ConnectionLostError("the blob ended early")
        self._failures = 0
        self._at += count
        return count

    async def _next_part(self) -> bytes:
        assert self._body is not None
        try:
            part = await anext(self._body)
        except StopAsyncIteration:
            raise ConnectionLostError("the blob ended early") from None
        if self._skip:
            dropped = min(self._skip, len(part))
            self._skip -= dropped
            part = part[dropped:]
        if self._at + len(part) > self._descriptor.size_bytes:
            await self.aclose()
            raise self._wrong(f"it is longer than {self._descriptor.size_bytes} bytes")
        if part:
            self._failures = 0
            self._at += len(part)
        return part

    async def _end(self) -> None:
        """A blob that goes on after its end is not the one that was asked for."""
        if self._body is not None and not self._skip:
            try:
                async for part in self._body:
                    if part:
                        raise self._wrong(f"it is longer than {self._descriptor.size_bytes} bytes")
            except httpx.TransportError:
                # All bytes are here; how the connection ended does not matter any more.
                pass
            finally:
                await self.aclose()

    async def _wait_or_give_up(self, error: Exception) -> None:
        await self.aclose()
        self._failures += 1
        if self._breaks_left is not None:
            self._breaks_left -= 1
        if self._failures >= self._transport.policy.attempts or self._breaks_left == 0:
            why = describe_failure(error) if isinstance(error, httpx.TransportError) else str(error)
            raise Unavailable(
                f"blob {self._descriptor.digest} of {self._reference.familiar_name}: {why}, after "
                f"{self._at} of {self._descriptor.size_bytes} bytes and {self._failures} attempts",
                code="download_interrupted",
                details={"digest": self._descriptor.digest, "received_bytes": self._at},
            ) from error
        await trio.sleep(self._transport.policy.wait_s(self._failures))

    async def _connect(self) -> None:
        await self.aclose()
        digest = self._descriptor.digest
        headers = {"Range": f"bytes={self._at}-"} if self._at else {}
        call = Call(
            method="GET",
            target=f"/v2/{self._reference.path}/blobs/{digest}",
            repository=self._reference.path,
            scopes=pull_scope(self._reference),
            headers=headers,
        )
        response = await self._session.send(call, self._credentials)
        if response.status_code not in (200, 206):
            response = await self._elsewhere_or_refuse(response, headers)
        try:
            self._skip = self._bytes_to_skip(response)
        except BaseException:
            await close_response(response)
            raise
        self._body = Body(response)

    async def _elsewhere_or_refuse(
        self, response: httpx.Response, headers: dict[str, str]
    ) -> httpx.Response:
        """Foreign layers live where their descriptor says; no credentials go there."""
        answer = await read_answer(response)
        error = refusal(answer, self._reference, "pull", blob=self._descriptor.digest)
        if answer.status == 416:
            raise self._wrong(f"it is shorter than {self._descriptor.size_bytes} bytes") from error
        if not isinstance(error, NotFound):
            if answer.status in RETRYABLE_STATUSES:
                error.details = {**error.details, "received_bytes": self._at}
            raise error
        for text in itertools.islice(self._descriptor.urls, 5):
            url = httpx.URL(text)
            if url.scheme not in ("http", "https") or not url.host:
                continue
            response = await self._transport.send(Outgoing(method="GET", url=url, headers=headers))
            if response.status_code in (200, 206):
                return response
            await close_response(response)
        raise error

    def _bytes_to_skip(self, response: httpx.Response) -> int:
        """How many of the answer's first bytes the reader has already."""
        size = self._descriptor.size_bytes
        length = response.headers.get("content-length")
        if response.status_code == 200:
            if length is not None and length.isdigit() and int(length) != size:
                raise self._wrong(f"expected {size} bytes, the registry has {length}")
            return self._at
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) > self._at:
            raise self._wrong("the registry sent another range than was asked for")
        if found[3] != "*" and int(found[3]) != size:
            raise self._wrong(f"expected {size} bytes, the registry has {found[3]}")
        return self._at - int(found[1])

    def _wrong(self, why: str) -> DataLoss:
        return DataLoss(
            f"blob {self._descriptor.digest} of {self._reference.familiar_name} is not what the "
            f"manifest says: {why}",
            code="blob_invalid",
            details={"digest": self._descriptor.digest},
        )
