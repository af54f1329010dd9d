"""A file system that is imported from a URL, fetched by the daemon as Docker's fetches it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import cast

from linkspan.sdk.errors import InvalidArgument, LinkspanError
from linkspan.sdk.unreachable import why_unreachable

_TIMEOUT_S = 60.0
_SCHEMES = ("http://", "https://")


def as_url(source: str) -> str:
    """The URL of ``fromSrc``; without a scheme it is a host's, as in Docker.

    Raises:
        InvalidArgument: Another scheme than HTTP's.
    """
    if source.startswith(_SCHEMES):
        return source
    if "://" in source:
        raise InvalidArgument(
            f"unsupported protocol scheme in {source}",
            help="use http:// or https://, or a file: docker import - NAME < FILE",
        )
    return f"http://{source}"


@asynccontextmanager
async def download(url: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """What a server gives for a URL, in pieces; redirects are followed.

    Raises:
        LinkspanError: code ``download_failed``: it cannot be reached, gives nothing, or breaks off.
        InvalidArgument: This is no URL.
    """
    # httpx takes 80 ms to import, and few daemons need it.
    import httpx

    try:
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=True) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                raise _failed(
                    url,
                    f"Got HTTP status {response.status_code} {response.reason_phrase} from it",
                )
            async with (
                aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_bytes())) as received,
                aclosing(_pieces(url, received)) as pieces,
            ):
                yield pieces
    except httpx.InvalidURL as error:
        raise InvalidArgument(f"invalid URL {url}: {error}") from error
    except httpx.HTTPError as error:
        target = httpx.URL(url)
        port = target.port or (443 if target.scheme == "https" else 80)
        why = why_unreachable(error, target.host, port) or str(error) or type(error).__name__
        raise _failed(url, why) from error


async def _pieces(url: str, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The pieces; whoever reads them is told where they came from when they end too early."""
    import httpx

    try:
        async for piece in pieces:
            yield piece
    except httpx.HTTPError as error:
        raise _failed(url, str(error) or type(error).__name__) from error


def _failed(url: str, why: str) -> LinkspanError:
    return LinkspanError(f'Get "{url}": {why}', code="download_failed")
