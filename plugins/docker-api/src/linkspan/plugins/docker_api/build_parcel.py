"""The body of ``POST /linkspan/v1/build``: what Docker's ``/build`` has no parameter for, then the context.

A parcel is the length of a JSON document in decimal digits, a newline, the document, and (unless the daemon
reads the folder itself) the tar. It keeps secrets out of URLs and headers, which end up in logs.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import attrs
import orjson
import trio

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.drivers.builder import BuildRequest, CacheExport, CacheImport
from linkspan.sdk.errors import InvalidArgument, NotFound

CONTENT_TYPE = "application/vnd.linkspan.build"
_MAX_DOCUMENT_BYTES = 16 << 20
_MAX_DIGITS = 9


async def unpack(body: AsyncIterator[bytes]) -> tuple[Document, AsyncIterator[bytes]]:
    """The document, and what follows it.

    Raises:
        InvalidArgument: It is no parcel, or its document is too large or no JSON object.
    """
    held = b""
    while b"\n" not in held and len(held) <= _MAX_DIGITS:
        held += await _next(body)
    digits, newline, held = held.partition(b"\n")
    if not newline or not digits.isdigit() or int(digits) > _MAX_DOCUMENT_BYTES:
        raise InvalidArgument("the body does not begin with the length of a JSON document")
    length = int(digits)
    pieces, size = [held], len(held)
    while size < length:
        pieces.append(await _next(body))
        size += len(pieces[-1])
    data = b"".join(pieces)
    try:
        document = Document(orjson.loads(data[:length]))
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the build's options are no JSON: {error}") from error
    return document, _rest(data[length:], body)


async def _next(body: AsyncIterator[bytes]) -> bytes:
    try:
        return await anext(body)
    except StopAsyncIteration:
        raise InvalidArgument("the body ends before the build's options do") from None


async def _rest(held: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if held:
        yield held
    async for piece in body:
        yield piece


async def apply(document: Document, request: BuildRequest) -> BuildRequest:
    """The request with what the document adds.

    Raises:
        InvalidArgument: A value has another type than it must have.
        NotFound: A named folder is not the one that the client sees.
    """
    return attrs.evolve(
        request,
        secrets={name: _bytes(name, text) for name, text in document.text_map("secrets").items()},
        contexts=await _contexts(document),
        cache_from=(
            *request.cache_from,
            *(
                CacheImport(reference=d.text("reference"), fresh=d.flag("fresh"))
                for d in document.documents("cache_from")
            ),
        ),
        cache_to=tuple(
            CacheExport(
                reference=d.text("reference"),
                every_stage=d.flag("every_stage"),
                push=d.flag("push"),
            )
            for d in document.documents("cache_to")
        ),
        no_cache_stages=document.texts("no_cache_filter"),
    )


def _bytes(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidArgument(f"the secret '{name}' is no base64") from error


async def _contexts(document: Document) -> Mapping[str, Path | str]:
    found: dict[str, Path | str] = {}
    for context in document.documents("contexts"):
        name, image = context.text("name"), context.text("image")
        if image:
            found[name] = image
        else:
            found[name] = await folder_here(context.text("folder"), context.text("folderid"))
    return found


async def folder_here(folder: str, identity: str) -> Path:
    """A folder that the daemon can read itself.

    Args:
        folder: Absolute path.
        identity: Its device and inode (``dev:ino``), by which client and daemon know that they mean the
            same one.

    Raises:
        NotFound: code ``folder_not_here``.
    """
    path = Path(folder)
    if not identity or await trio.to_thread.run_sync(_identity, path) != identity:
        raise NotFound(f"the daemon does not see the folder {folder}", code="folder_not_here")
    return path


def _identity(folder: Path) -> str | None:
    try:
        info = folder.stat()
    except (OSError, ValueError):
        return None
    return f"{info.st_dev}:{info.st_ino}" if folder.is_absolute() and folder.is_dir() else None
