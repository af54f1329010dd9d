"""ADD of a URL: the file is fetched for every build, the cache goes by its digest."""

import email.utils
import urllib.parse
from pathlib import Path

import trio

from linkspan.plugins.dockerfile_builder.selection import Selection, Source, TransferError
from linkspan.plugins.dockerfile_builder.tree import Node, TarTree

_TIMEOUT_S = 60.0
_SCHEMES = ("http://", "https://")
_GIT_PREFIXES = ("git@", "git://", "ssh://", "github.com/")


def is_url(source: str) -> bool:
    """Whether a source of ADD is fetched over HTTP."""
    return source.startswith(_SCHEMES)


def is_git(source: str) -> bool:
    """Whether a source of ADD names a git repository."""
    path = urllib.parse.urlsplit(source).path if is_url(source) else ""
    return source.startswith(_GIT_PREFIXES) or path.endswith(".git")


async def fetch(
    url: str, folder: Path, *, checksum: str, limit_bytes: int
) -> tuple[TarTree, Selection]:
    """Fetch a file into a tree of its own, which the caller closes.

    Args:
        url: http or https.
        folder: Where the data is kept meanwhile.
        checksum: ``sha256:…`` that it must have; empty for any.
        limit_bytes: A larger file is refused.

    Raises:
        TransferError: The server does not give it, it is too large, or its digest differs.
    If cancelled: nothing is left.
    """
    # httpx takes 80 ms to import, and few builds need it.
    import httpx

    tree = TarTree(folder)
    node = Node(kind="file", mode=0o600)
    try:
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=True) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                raise TransferError(
                    f"ADD failed: failed to GET {url} with status {response.status_code}"
                    f" {response.reason_phrase}"
                )
            node.mtime_ns = _modified_ns(response.headers.get("Last-Modified", ""))
            writer = tree.file_writer(node)
            left = limit_bytes
            async for piece in response.aiter_bytes():
                left -= len(piece)
                if left < 0:
                    raise TransferError(f"ADD failed: {url} is larger than {limit_bytes} bytes")
                await trio.to_thread.run_sync(writer.write, piece)
            await trio.to_thread.run_sync(writer.finish)
    except httpx.HTTPError as error:
        tree.close()
        raise TransferError(f"ADD failed: failed to GET {url}: {error}") from error
    except BaseException:
        tree.close()
        raise
    assert node.digest is not None
    digest = f"sha256:{node.digest.hex()}"
    if checksum and checksum != digest:
        tree.close()
        raise TransferError(f"digest mismatch {digest}: {checksum}")
    source = Source(name=_file_name(url), node=node)
    return tree, Selection(sources=(source,), many=False)


def _file_name(url: str) -> str:
    path = urllib.parse.unquote(urllib.parse.urlsplit(url).path).rstrip("/")
    return path.rpartition("/")[2] or "__unnamed__"


def _modified_ns(header: str) -> int:
    """Last-Modified, or the epoch."""
    try:
        return int(email.utils.parsedate_to_datetime(header).timestamp()) * 1_000_000_000
    except ValueError:
        return 0
