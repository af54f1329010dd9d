"""Mirrors of Docker Hub: asked first for what is pulled, never for what is pushed.

Whatever a mirror does wrong, also in the middle of a blob, the next one is asked then, and the origin in the
end; digests are verified in either case. A mirror never sees the caller's credentials, which are Docker Hub's;
its own may stand in Docker's config file.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Final, Self, TypeVar

import attrs
import httpx
import trio

from linkspan.plugins.distribution_registry.addresses import is_docker_hub
from linkspan.plugins.distribution_registry.docker_config import DockerConfig
from linkspan.plugins.distribution_registry.download import BlobDownload
from linkspan.plugins.distribution_registry.session import Session
from linkspan.plugins.distribution_registry.transport import Transport
from linkspan.sdk.errors import LinkspanError, Unavailable
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.reference import Reference

_log = logging.getLogger(__name__)

_REST_S: Final = 60.0
_ANONYMOUS: Final = Credentials()

T = TypeVar("T")
Ask = Callable[[Session, Credentials], Awaitable[T]]


@attrs.define
class Source:
    """Who may be asked, and as whom; ``last`` is the origin, after which there is nobody."""

    session: Session
    credentials: Credentials
    last: bool = False
    rests_until: float = float("-inf")

    def failed(self, error: LinkspanError) -> None:
        """Another one is asked now. One that does not answer at all is left alone for a while."""
        if isinstance(error, Unavailable):
            # Not every layer should wait for that again.
            self.rests_until = trio.current_time() + _REST_S
        _log.info(
            "a mirror does not have it",
            extra={"mirror": self.session.domain, "reason": str(error)},
        )


class Mirrors:
    """The mirrors of the daemon's config, in their order."""

    def __init__(
        self, urls: Iterable[str], transport: Transport, docker_config: DockerConfig
    ) -> None:
        self._mirrors = []
        for url in map(httpx.URL, urls):
            domain = url.netloc.decode("ascii")
            session = Session(domain, transport, docker_config, base=url.copy_with(path="/"))
            self._mirrors.append(Source(session, _ANONYMOUS))

    def sources(
        self, reference: Reference, origin: Session, credentials: Credentials
    ) -> Iterator[Source]:
        """Who is to be asked, one after the other."""
        for mirror in self._mirrors if is_docker_hub(reference.domain) else ():
            if trio.current_time() >= mirror.rests_until:
                yield mirror
        yield Source(origin, credentials, last=True)

    async def first(
        self, reference: Reference, origin: Session, credentials: Credentials, ask: Ask[T]
    ) -> T:
        """Ask the mirrors, then the origin; the first good answer. Raises what the origin raises."""
        for source in self.sources(reference, origin, credentials):
            try:
                return await ask(source.session, source.credentials)
            except LinkspanError as error:
                if source.last:
                    raise
                source.failed(error)
        raise AssertionError("the origin answers or raises")


class MirroredBlob(AsyncIterator[bytes]):
    """Iterates over a blob; where one source gives up, the next one goes on at the same byte."""

    def __init__(
        self, sources: Iterator[Source], begin: Callable[[Source, int], BlobDownload], offset: int
    ) -> None:
        """Nothing is asked yet.

        Args:
            begin: Makes the download of a source from an offset.
        """
        self._sources = sources
        self._begin = begin
        self._source = next(sources)
        self._download = begin(self._source, offset)

    async def open(self) -> None:
        """Connect to the first source that has it. Raises what the origin raises."""
        while True:
            try:
                await self._download.open()
            except LinkspanError as error:
                await self._go_on(error)
            else:
                return

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            try:
                return await anext(self._download)
            except LinkspanError as error:
                await self._go_on(error)

    async def pour(self, pipe: int) -> int:
        """See ``linkspan.sdk.pouring.Pourable``."""
        while True:
            try:
                return await self._download.pour(pipe)
            except LinkspanError as error:
                await self._go_on(error)

    async def _go_on(self, error: LinkspanError) -> None:
        await self._download.aclose()
        if self._source.last:
            raise error
        self._source.failed(error)
        self._source = next(self._sources)
        self._download = self._begin(self._source, self._download.at)

    async def aclose(self) -> None:
        """Close the connection; may be called at any time, and again."""
        await self._download.aclose()
