"""Mirrors of Docker Hub: asked first for what is pulled, never for what is pushed.

Whatever a mirror does wrong, the origin is asked then; digests are verified in either case. A mirror never
sees the caller's credentials, which are Docker Hub's; its own may stand in Docker's config file.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

import attrs
import httpx
import trio

from linkspan.plugins.distribution_registry.addresses import is_docker_hub
from linkspan.plugins.distribution_registry.docker_config import DockerConfig
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
class _Mirror:
    session: Session
    rests_until: float = float("-inf")


class Mirrors:
    """The mirrors of the daemon's config, in their order."""

    def __init__(
        self, urls: Iterable[str], transport: Transport, docker_config: DockerConfig
    ) -> None:
        self._mirrors = []
        for url in map(httpx.URL, urls):
            domain = url.netloc.decode("ascii")
            session = Session(domain, transport, docker_config, base=url.copy_with(path="/"))
            self._mirrors.append(_Mirror(session))

    async def first(
        self, reference: Reference, origin: Session, credentials: Credentials, ask: Ask[T]
    ) -> T:
        """Ask the mirrors, then the origin; the first good answer. Raises what the origin raises."""
        for mirror in self._mirrors if is_docker_hub(reference.domain) else ():
            if trio.current_time() < mirror.rests_until:
                continue
            try:
                return await ask(mirror.session, _ANONYMOUS)
            except LinkspanError as error:
                if isinstance(error, Unavailable):
                    # It does not answer at all: not every layer should wait for that again.
                    mirror.rests_until = trio.current_time() + _REST_S
                _log.info(
                    "a mirror does not have it",
                    extra={"mirror": mirror.session.domain, "reason": str(error)},
                )
        return await ask(origin, credentials)
