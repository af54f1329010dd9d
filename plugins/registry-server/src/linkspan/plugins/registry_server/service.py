"""The distribution-spec's endpoints (spec.md "Endpoints", end-1 … end-13)."""

import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import trio

from linkspan.plugins.registry_server.config import RegistryServerConfig
from linkspan.plugins.registry_server.manifest import check_manifest
from linkspan.plugins.registry_server.names import (
    ALGORITHMS,
    check_digest,
    check_name,
    check_tag,
    is_digest,
)
from linkspan.plugins.registry_server.ranges import parse_content_range, parse_range
from linkspan.plugins.registry_server.refusal import (
    RefusalError,
    digest_invalid,
    full_disk_refused,
    upload_unknown,
)
from linkspan.plugins.registry_server.server import Exchange
from linkspan.plugins.registry_server.store import Store, StoredManifest, digest_of
from linkspan.plugins.registry_server.uploads import Upload, Uploads
from linkspan.sdk.media_types import OCI_INDEX

_OCTETS = "application/octet-stream"
_JSON = "application/json"
_FOREVER = "max-age=31536000"

InThread = Callable[..., Awaitable[Any]]
Answer = Callable[..., Awaitable[None]]


class Service:
    """Answers requests from the store."""

    def __init__(
        self, store: Store, uploads: Uploads, config: RegistryServerConfig, in_thread: InThread
    ) -> None:
        self._store = store
        self._uploads = uploads
        self._config = config
        self._in_thread = in_thread
        # What repositories name, and which bytes may go, changes under this lock alone.
        self._changes = trio.Lock()
        # Greedy names: a repository's parts may be called "blobs" or "manifests" themselves.
        self._routes: tuple[tuple[re.Pattern[str], Mapping[str, Answer]], ...] = (
            (re.compile(r"/v2/?"), {"GET": self._ping}),
            (re.compile(r"/v2/_catalog"), {"GET": self._catalog}),
            (re.compile(r"/v1/search"), {"GET": self._search}),
            (re.compile(r"/v2/(.+)/tags/list"), {"GET": self._tags}),
            (re.compile(r"/v2/(.+)/blobs/uploads/?"), {"POST": self._begin_upload}),
            (
                re.compile(r"/v2/(.+)/blobs/uploads/([^/]+)"),
                {
                    "GET": self._upload_status,
                    "PATCH": self._continue_upload,
                    "PUT": self._finish_upload,
                    "DELETE": self._cancel_upload,
                },
            ),
            (
                re.compile(r"/v2/(.+)/blobs/([^/]+)"),
                {"GET": self._blob, "DELETE": self._delete_blob},
            ),
            (
                re.compile(r"/v2/(.+)/manifests/([^/]+)"),
                {
                    "GET": self._manifest,
                    "PUT": self._put_manifest,
                    "DELETE": self._delete_manifest,
                },
            ),
            (re.compile(r"/v2/(.+)/referrers/([^/]+)"), {"GET": self._referrers}),
        )

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request. Raises RefusalError."""
        method = "GET" if exchange.head.method == "HEAD" else exchange.head.method
        for pattern, methods in self._routes:
            match = pattern.fullmatch(exchange.head.path)
            if match is None:
                continue
            if method not in methods:
                allowed = ", ".join(methods)
                raise RefusalError(
                    405,
                    "UNSUPPORTED",
                    "the operation is unsupported",
                    headers={"Allow": allowed},
                )
            if match.groups():
                check_name(match[1])
            await methods[method](exchange, *match.groups())
            return
        raise RefusalError(404, "NAME_UNKNOWN", "no such endpoint")

    # --- discovery

    async def _ping(self, exchange: Exchange) -> None:
        await _respond(exchange, 200, {"Content-Type": _JSON}, b"{}")

    async def _catalog(self, exchange: Exchange) -> None:
        found = await self._in_thread(self._store.repositories)
        await _page(exchange, "repositories", found, {})

    async def _search(self, exchange: Exchange) -> None:
        """Repositories by a part of their name, as Docker's clients ask for them."""
        query = exchange.head.query
        term, count = query.get("q", ""), query.get("n", "25")
        if not count.isdigit():
            raise RefusalError(400, "PAGINATION_NUMBER_INVALID", "n is not a number")
        found = [n for n in await self._in_thread(self._store.repositories) if term in n]
        results = [
            {"name": name, "description": "", "star_count": 0, "is_official": False}
            for name in found[: int(count[:6])]
        ]
        document = {"query": term, "num_results": len(results), "results": results}
        await _respond(exchange, 200, {"Content-Type": _JSON}, _json(document))

    async def _tags(self, exchange: Exchange, name: str) -> None:
        found = await self._in_thread(self._store.tags, name)
        await _page(exchange, "tags", found, {"name": name})

    async def _referrers(self, exchange: Exchange, name: str, digest: str) -> None:
        check_digest(digest)
        found = await self._in_thread(self._store.referrers, name, digest)
        headers = {"Content-Type": OCI_INDEX}
        wanted = exchange.head.query.get("artifactType")
        if wanted:
            found = [d for d in found if d.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        await _respond(exchange, 200, headers, _json(index))

    # --- blobs

    async def _blob(self, exchange: Exchange, name: str, digest: str) -> None:
        check_digest(digest)
        headers = {
            "Content-Type": _OCTETS,
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
            "ETag": f'"{digest}"',
            "Cache-Control": _FOREVER,
        }
        async with self._open_blob(name, digest) as (fd, size):
            if _unchanged(exchange, digest):
                await _respond(exchange, 304, headers)
                return
            asked = parse_range(exchange.head.headers.get("range"), size)
            if asked is None:
                await _respond_file(exchange, 200, headers, fd, 0, size)
                return
            start, end = asked
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            await _respond_file(exchange, 206, headers, fd, start, end - start)

    @contextlib.asynccontextmanager
    async def _open_blob(self, name: str, digest: str) -> AsyncIterator[tuple[int, int]]:
        fd, size = await self._in_thread(self._store.open_blob, name, digest)
        try:
            yield fd, size
        finally:
            os.close(fd)

    async def _delete_blob(self, exchange: Exchange, name: str, digest: str) -> None:
        self._check_delete()
        check_digest(digest)
        async with self._changes:
            await self._in_thread(self._store.delete_blob, name, digest)
        await _respond(exchange, 202)

    def _check_delete(self) -> None:
        if not self._config.delete:
            raise RefusalError(405, "UNSUPPORTED", "deleting is switched off")

    # --- uploads

    async def _begin_upload(self, exchange: Exchange, name: str) -> None:
        query = exchange.head.query
        if "mount" in query:
            check_digest(query["mount"])
            if await self._mount(name, query["mount"], query.get("from", "")):
                await _respond(exchange, 201, _blob_headers(name, query["mount"]))
                return
        algorithm = query.get("digest-algorithm", "sha256")
        if "digest" in query and "mount" not in query:
            algorithm, _ = check_digest(query["digest"])
        if algorithm not in ALGORITHMS:
            raise digest_invalid(f"digest algorithm '{algorithm}' is not supported")
        upload = await self._uploads.begin(name, algorithm)
        if "digest" in query and "mount" not in query:
            async with self._holding(upload, drop_on_failure=True):
                await self._uploads.write(upload, exchange.receive)
                await self._adopt(upload, query["digest"])
            await _respond(exchange, 201, _blob_headers(name, query["digest"]))
            return
        await _respond(exchange, 202, _upload_headers(upload))

    async def _mount(self, name: str, digest: str, source: str) -> bool:
        """Only from a repository that has it; a client that names none uploads."""
        if not source:
            return False
        check_name(source)
        async with self._changes:
            if not await self._in_thread(self._store.has_blob, source, digest):
                return False
            await self._in_thread(self._store.link_blob, name, digest)
        return True

    @contextlib.asynccontextmanager
    async def _holding(
        self, upload: Upload, *, drop_on_failure: bool = False
    ) -> AsyncIterator[None]:
        """Only one request at a time adds to an upload."""
        async with upload.lock:
            if upload.dropped:
                raise upload_unknown(upload.id)
            try:
                yield
            except BaseException:
                if drop_on_failure:
                    await self._uploads.drop(upload)
                raise

    async def _upload_status(self, exchange: Exchange, name: str, session: str) -> None:
        upload = self._uploads.get(name, session)
        await _respond(exchange, 204, _upload_headers(upload))

    async def _continue_upload(self, exchange: Exchange, name: str, session: str) -> None:
        upload = self._uploads.get(name, session)
        async with self._holding(upload):
            _check_order(exchange, upload)
            await self._uploads.write(upload, exchange.receive)
        await _respond(exchange, 202, _upload_headers(upload))

    async def _finish_upload(self, exchange: Exchange, name: str, session: str) -> None:
        upload = self._uploads.get(name, session)
        digest = exchange.head.query.get("digest")
        if digest is None:
            raise digest_invalid("the parameter 'digest' is missing")
        async with self._holding(upload):
            check_digest(digest)
            _check_order(exchange, upload)
            await self._uploads.write(upload, exchange.receive)
            await self._adopt(upload, digest)
        await _respond(exchange, 201, _blob_headers(name, digest))

    async def _adopt(self, upload: Upload, digest: str) -> None:
        path = await self._uploads.finish(upload, digest)
        with full_disk_refused():
            async with self._changes:
                await self._in_thread(self._store.adopt_blob, upload.repository, digest, path)

    async def _cancel_upload(self, exchange: Exchange, name: str, session: str) -> None:
        upload = self._uploads.get(name, session)
        async with self._holding(upload):
            await self._uploads.drop(upload)
        await _respond(exchange, 204)

    # --- manifests

    async def _manifest(self, exchange: Exchange, name: str, reference: str) -> None:
        _check_reference(reference)
        found: StoredManifest = await self._in_thread(self._store.manifest, name, reference)
        headers = {
            "Content-Type": found.media_type,
            "Docker-Content-Digest": found.digest,
            "ETag": f'"{found.digest}"',
        }
        if _unchanged(exchange, found.digest):
            await _respond(exchange, 304, headers)
            return
        await _respond(exchange, 200, headers, found.data)

    async def _put_manifest(self, exchange: Exchange, name: str, reference: str) -> None:
        _check_reference(reference)
        tags = [value for key, value in exchange.head.query_all if key == "tag"]
        for tag in tags:
            check_tag(tag)
        data = await exchange.read(self._config.manifest_limit_bytes)
        content_type = exchange.head.headers.get("content-type", "")
        checked = await self._in_thread(check_manifest, data, content_type)
        digest = await self._in_thread(digest_of, data, _algorithm(reference))
        if not is_digest(reference):
            tags.append(reference)
        elif reference != digest:
            raise digest_invalid(
                "provided digest did not match uploaded content",
                {"expected": reference, "found": digest},
            )
        stored = StoredManifest(digest=digest, media_type=checked.media_type, data=data)
        with full_disk_refused():
            async with self._changes:
                await self._check_blobs(name, checked.blobs)
                await self._in_thread(self._store.put_manifest, name, stored, tuple(tags))
                if checked.subject:
                    descriptor = checked.referrer(digest, len(data))
                    await self._in_thread(
                        self._store.add_referrer, name, checked.subject, descriptor
                    )
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if checked.subject:
            headers["OCI-Subject"] = checked.subject
        await _respond(exchange, 201, headers)

    async def _check_blobs(self, name: str, digests: tuple[str, ...]) -> None:
        for digest in digests:
            if not await self._in_thread(self._store.has_blob, name, digest):
                raise RefusalError(
                    400,
                    "MANIFEST_BLOB_UNKNOWN",
                    "blob unknown to registry",
                    detail={"digest": digest},
                )

    async def _delete_manifest(self, exchange: Exchange, name: str, reference: str) -> None:
        self._check_delete()
        _check_reference(reference)
        remove = self._store.delete_manifest if is_digest(reference) else self._store.delete_tag
        async with self._changes:
            await self._in_thread(remove, name, reference)
        await _respond(exchange, 202)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _algorithm(reference: str) -> str:
    return check_digest(reference)[0] if is_digest(reference) else "sha256"


def _check_reference(reference: str) -> None:
    if is_digest(reference):
        check_digest(reference)
    else:
        check_tag(reference)


def _unchanged(exchange: Exchange, digest: str) -> bool:
    asked = exchange.head.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/").strip('"') == digest for tag in asked.split(","))


def _blob_headers(name: str, digest: str) -> dict[str, str]:
    return {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest}


def _upload_headers(upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(0, upload.size_bytes - 1)}",
        "Docker-Upload-UUID": upload.id,
    }


def _check_order(exchange: Exchange, upload: Upload) -> None:
    """A chunk must begin where the last one ended (spec.md "Pushing a blob in chunks")."""
    text = exchange.head.headers.get("content-range")
    if text is None:
        return
    start, length = parse_content_range(text)
    given = exchange.head.headers.get("content-length")
    if given is not None and given.isdigit() and int(given) != length:
        raise RefusalError(400, "SIZE_INVALID", "Content-Range and Content-Length disagree")
    if start != upload.size_bytes:
        raise RefusalError(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the chunk begins at {start}, but {upload.size_bytes} bytes are here",
            headers=_upload_headers(upload),
        )


async def _respond(
    exchange: Exchange, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> None:
    await exchange.respond(status, {**_COMMON, **(headers or {})}, body)


async def _respond_file(
    exchange: Exchange, status: int, headers: Mapping[str, str], fd: int, start: int, length: int
) -> None:
    await exchange.respond_file(status, {**_COMMON, **headers}, fd, start, length)


_COMMON = {"Docker-Distribution-Api-Version": "registry/2.0"}


async def _page(exchange: Exchange, key: str, found: list[str], more: Mapping[str, str]) -> None:
    """``n`` and ``last`` (spec.md "Listing Tags"); ``n=0`` is an empty page without a next one."""
    query = exchange.head.query
    last = query.get("last")
    if last is not None:
        found = [item for item in found if item > last]
    limit = len(found)
    if "n" in query:
        if not (query["n"].isascii() and query["n"].isdigit() and len(query["n"]) < 10):
            raise RefusalError(400, "PAGINATION_NUMBER_INVALID", "n must be a whole number")
        limit = int(query["n"])
    page = found[:limit]
    headers = {"Content-Type": _JSON}
    if page and len(found) > len(page):
        following = urlencode({"last": page[-1], "n": limit})
        headers["Link"] = f'<{exchange.head.path}?{following}>; rel="next"'
    await _respond(exchange, 200, headers, _json({**more, key: page}))
