"""Uploading a blob: mount it, or POST and PUT; go on after a cut (distribution-spec "Pushing")."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

import attrs
import httpx
import trio

from linkspan.plugins.distribution_registry.faults import read_answer, refusal
from linkspan.plugins.distribution_registry.retry import RETRYABLE_STATUSES
from linkspan.plugins.distribution_registry.session import Call, Session, push_scope
from linkspan.plugins.distribution_registry.transport import (
    ConnectionLostError,
    Transport,
    close_response,
)
from linkspan.sdk.drivers.registry import BlobSource
from linkspan.sdk.errors import DataLoss, LinkspanError, Unavailable
from linkspan.sdk.model.image import Credentials, Descriptor
from linkspan.sdk.reference import Reference

PIECE_BYTES = 256 << 10
MAX_MOUNTS = 3
_FINISH_TIMEOUT_S = 600.0
"""A registry may hash and copy a large blob before it answers the last request."""

_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
Outcome = Literal["exists", "mounted", "pushed"]


@attrs.define
class _Progress:
    """Where an upload stands: the session's address and the bytes that the registry has."""

    location: str
    offset: int = 0


class Opening:
    """Opens uploads to one repository, and takes them back."""

    def __init__(
        self, session: Session, reference: Reference, credentials: Credentials, blob: str = ""
    ) -> None:
        self._session = session
        self._reference = reference
        self._credentials = credentials
        self._scopes = push_scope(reference)
        self._blob = blob

    async def prove(self) -> None:
        """See ``Registry.check_push``."""
        await self._abort(await self._begin())

    @property
    def _uploads(self) -> str:
        return f"/v2/{self._reference.path}/blobs/uploads/"

    def _call(self, method: str, target: str, **more: object) -> Call:
        base = Call(
            method=method,
            target=target,
            repository=self._reference.path,
            scopes=self._scopes,
        )
        return attrs.evolve(base, **more)  # type: ignore[arg-type]

    async def _begin(self) -> str:
        call = self._call("POST", self._uploads)
        async with self._session.exchange(call, self._credentials) as answer:
            if answer.status_code != 202 or "location" not in answer.headers:
                raise await self._refusal(answer)
            return _location(answer)

    async def _abort(self, location: str) -> None:
        """Tell the registry that nothing more comes; it forgets the session by itself otherwise."""
        if not location:
            return
        with trio.move_on_after(2.0, shield=True):
            try:
                response = await self._session.send(
                    self._call("DELETE", location), self._credentials
                )
                await close_response(response)
            except (LinkspanError, ConnectionLostError):
                pass

    async def _refusal(self, answer: httpx.Response) -> LinkspanError:
        return refusal(await read_answer(answer), self._reference, "push", blob=self._blob)


class BlobUpload(Opening):
    """Uploads one blob to one repository."""

    def __init__(
        self,
        session: Session,
        transport: Transport,
        reference: Reference,
        descriptor: Descriptor,
        source: BlobSource,
        credentials: Credentials,
        sent: Callable[[int], None] | None,
    ) -> None:
        super().__init__(session, reference, credentials, descriptor.digest)
        self._transport = transport
        self._descriptor = descriptor
        self._source = source
        self._sent = sent or (lambda _: None)

    async def run(self, mount_from: Sequence[str]) -> Outcome:
        """Do it; see ``Registry.push_blob``."""
        if await self._exists():
            return "exists"
        location = await self._mount(tuple(mount_from)[:MAX_MOUNTS])
        if location is None:
            return "mounted"
        await self._send_all(location or await self._begin())
        return "pushed"

    async def _exists(self) -> bool:
        target = f"/v2/{self._reference.path}/blobs/{self._descriptor.digest}"
        async with self._session.exchange(self._call("HEAD", target), self._credentials) as answer:
            if answer.status_code == 200:
                return True
            if answer.status_code != 404:
                raise await self._refusal(answer)
        return False

    async def _mount(self, repositories: Sequence[str]) -> str | None:
        """None if mounted; else the address of an upload that the try has opened, or ``""``."""
        location = ""
        for name in repositories:
            await self._abort(location)
            query = httpx.QueryParams({"mount": self._descriptor.digest, "from": name})
            call = self._call(
                "POST", f"{self._uploads}?{query}", scopes=push_scope(self._reference, name)
            )
            async with self._session.exchange(call, self._credentials) as answer:
                if answer.status_code == 201:
                    return None
                # Whatever else is wrong with the other repository, the upload works without it.
                location = _location(answer) if answer.status_code == 202 else ""
        return location

    async def _send_all(self, location: str) -> None:
        progress = _Progress(location)
        failures = 0
        try:
            while True:
                before = progress.offset
                try:
                    await self._send_rest(progress)
                except ConnectionLostError as error:
                    failures = 1 if progress.offset > before else failures + 1
                    if failures >= self._transport.policy.attempts:
                        raise self._interrupted(error, failures) from error
                    await trio.sleep(self._transport.policy.wait_s(failures))
                    if await self._exists():
                        return
                    await self._find_progress(progress)
                else:
                    return
        except BaseException:
            await self._abort(progress.location)
            raise

    def _interrupted(self, error: Exception, failures: int) -> Unavailable:
        return Unavailable(
            f"blob {self._descriptor.digest} cannot be pushed to {self._reference.familiar_name}: "
            f"{error}, after {failures} attempts",
            code="upload_interrupted",
            details={"digest": self._descriptor.digest},
        )

    async def _send_rest(self, progress: _Progress) -> None:
        """One PUT for all; after a cut, a PATCH for what is missing and an empty PUT."""
        if progress.offset:
            await self._patch(progress)
        await self._put(progress)

    async def _patch(self, progress: _Progress) -> None:
        start, size = progress.offset, self._descriptor.size_bytes
        if start < size:
            headers = {"Content-Range": f"{start}-{size - 1}"}
            answer = await self._stream("PATCH", progress.location, start, headers)
            if answer.status_code != 202:
                raise await self._again_or_refusal(answer, progress)
            await close_response(answer)
            progress.location = _location(answer) or progress.location
        progress.offset = size

    async def _put(self, progress: _Progress) -> None:
        location = httpx.URL(progress.location).copy_merge_params(
            {"digest": self._descriptor.digest}
        )
        answer = await self._stream("PUT", str(location), progress.offset, {})
        if answer.status_code != 201:
            raise await self._again_or_refusal(answer, progress)
        await close_response(answer)
        found = answer.headers.get("docker-content-digest", self._descriptor.digest)
        if found != self._descriptor.digest:
            raise DataLoss(
                f"the registry stored {self._descriptor.digest} as {found}", code="digest_mismatch"
            )

    async def _stream(
        self, method: str, location: str, offset: int, headers: dict[str, str]
    ) -> httpx.Response:
        length = self._descriptor.size_bytes - offset
        headers = {
            **headers,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(length),
        }
        if length == 0:
            call = self._call(
                method,
                location,
                headers=headers,
                content=b"",
                answer_timeout_s=_FINISH_TIMEOUT_S,
            )
            return await self._session.send(call, self._credentials)
        async with self._source(offset) as parts:
            call = self._call(
                method,
                location,
                headers=headers,
                content=_Body(parts, length, lambda n: self._sent(offset + n)),
                answer_timeout_s=_FINISH_TIMEOUT_S,
            )
            return await self._session.send(call, self._credentials)

    async def _again_or_refusal(self, answer: httpx.Response, progress: _Progress) -> Exception:
        """Statuses that pass, and a session that the registry has lost, are worth another try."""
        if answer.status_code in RETRYABLE_STATUSES or answer.status_code == 416:
            found = await read_answer(answer)
            if "no space left" in f"{found.message} {found.detail}":
                return refusal(found, self._reference, "push")
            return ConnectionLostError(found.text or f"status {found.status}")
        if answer.status_code == 404 and progress.offset:
            await close_response(answer)
            return ConnectionLostError("the registry has lost the upload")
        return await self._refusal(answer)

    async def _find_progress(self, progress: _Progress) -> None:
        """Ask how far the registry got; begin a new upload if it does not know."""
        try:
            async with self._session.exchange(
                self._call("GET", progress.location), self._credentials
            ) as answer:
                found = _RANGE.fullmatch(answer.headers.get("range", ""))
                if answer.status_code == 204 and found is not None and int(found[1]) > 0:
                    offset = int(found[1]) + 1
                    if offset <= self._descriptor.size_bytes:
                        progress.offset = offset
                        progress.location = _location(answer) or progress.location
                        return
        except (LinkspanError, ConnectionLostError):
            pass
        progress.location, progress.offset = await self._begin(), 0


def _location(answer: httpx.Response) -> str:
    """Where to go on; it may be relative, and may change at every step."""
    location = answer.headers.get("location", "")
    return str(answer.url.join(location)) if location else ""


class _Body(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """The source in pieces of at most 256 KiB; exactly as many bytes as were promised."""

    def __init__(
        self, parts: AsyncIterator[bytes], length: int, sent: Callable[[int], None]
    ) -> None:
        self._parts = parts
        self._left = length
        self._done = 0
        self._pending = memoryview(b"")
        self._sent = sent

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._done:
            self._sent(self._done)
        while not self._pending:
            try:
                self._pending = memoryview(await anext(self._parts))
            except StopAsyncIteration:
                if self._left:
                    raise DataLoss(
                        f"the stored blob is {self._left} bytes too short", code="blob_invalid"
                    ) from None
                raise
        if len(self._pending) > self._left:
            raise DataLoss("the stored blob is too long", code="blob_invalid")
        piece = self._pending[:PIECE_BYTES]
        self._pending = self._pending[len(piece) :]
        self._left -= len(piece)
        self._done += len(piece)
        return bytes(piece)
