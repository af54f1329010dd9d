"""A registry that does what a test tells it: refuses, lies, breaks off."""

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@attrs.frozen
class Question:
    """A request, with header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


@attrs.frozen(kw_only=True)
class Answer:
    """An answer.

    Attributes:
        cut_after: Close the connection after so many bytes of the body.
        stall_after: Say nothing more after so many bytes of the body, until the client goes.
        hold_after: Say the rest of the body behind so many bytes when ``goes_on`` happens.
    """

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    stall_after: int | None = None
    hold_after: int | None = None
    goes_on: trio.Event = attrs.field(factory=trio.Event)


Fault = Callable[[Question], Answer | None]


@attrs.frozen(kw_only=True)
class Picture:
    """An image as a registry has it: a manifest, a config, gzipped layers."""

    manifest: bytes
    config: bytes
    layers: Sequence[bytes]

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return sha256(self.manifest)


def sha256(data: bytes) -> str:
    """A digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(*entries: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    """A tar of entries, or of names with contents."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size, info.mode = len(entry[1]), 0o755
                tar.addfile(info, io.BytesIO(entry[1]))
    return packed.getvalue()


def picture(*tars: bytes) -> Picture:
    """An image of layers."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/busybox", "true"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
        }
    ).encode()
    layers = [gzip.compress(tar, 1, mtime=0) for tar in tars]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(config), "digest": sha256(config)},
            "layers": [
                {"mediaType": LAYER, "size": len(layer), "digest": sha256(layer)}
                for layer in layers
            ],
        }
    ).encode()
    return Picture(manifest=manifest, config=config, layers=layers)


class ScriptedRegistry:
    """Serves one image under every name; a fault may answer instead.

    Attributes:
        address: ``HOST:PORT``.
        asked: What was asked, in order.
    """

    def __init__(self, image: Picture, fault: Fault, *, keep_alive: bool = True) -> None:
        self._image = image
        self._keep_alive = keep_alive
        self._fault = fault
        self._blobs = {sha256(blob): blob for blob in (image.config, *image.layers)}
        self.address = ""
        self.asked: list[Question] = []

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Answer until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        await trio.serve_listeners(self._talk, listeners, task_status=task_status)  # type: ignore[arg-type]

    async def _talk(self, stream: trio.SocketStream) -> None:
        data = b""
        with trio.CancelScope() as scope:
            while True:
                while b"\r\n\r\n" not in data:
                    try:
                        part = await stream.receive_some(65536)
                    except trio.BrokenResourceError:
                        return
                    if not part:
                        return
                    data += part
                head, _, data = data.partition(b"\r\n\r\n")
                question = _question(head.decode())
                self.asked.append(question)
                answer = self._fault(question) or self._plain(question)
                if not self._keep_alive:
                    headers = {**answer.headers, "Connection": "close"}
                    answer = attrs.evolve(answer, headers=headers)
                if not await _say(stream, question, answer) or not self._keep_alive:
                    await stream.aclose()
                    scope.cancel()

    def _plain(self, question: Question) -> Answer:
        path = question.path
        if path.rstrip("/") == "/v2":
            return Answer()
        if re.fullmatch(r"/v2/.+/manifests/[^/]+", path):
            headers = {"Content-Type": MANIFEST, "Docker-Content-Digest": self._image.digest}
            return Answer(headers=headers, body=self._image.manifest)
        if (found := re.fullmatch(r"/v2/.+/blobs/([^/]+)", path)) and found[1] in self._blobs:
            return ranged(question, self._blobs[found[1]])
        return Answer(status=404, body=b'{"errors": [{"code": "NAME_UNKNOWN"}]}')


def ranged(question: Question, body: bytes) -> Answer:
    """A body, or what the question wants of it (RFC 9110, section 14)."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", question.headers.get("range", ""))
    if wanted is None:
        return Answer(body=body, headers={"Accept-Ranges": "bytes"})
    first, last = int(wanted[1]), int(wanted[2] or len(body) - 1)
    return Answer(
        status=206,
        headers={"Content-Range": f"bytes {first}-{last}/{len(body)}"},
        body=body[first : last + 1],
    )


def _question(head: str) -> Question:
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Question(method, path.partition("?")[0], headers)


async def _say(stream: trio.SocketStream, question: Question, answer: Answer) -> bool:
    """Send an answer; False if the connection is to be closed."""
    headers = {"Content-Length": str(len(answer.body)), **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
    body = b"" if question.method == "HEAD" else answer.body
    if answer.cut_after is not None:
        body = body[: answer.cut_after]
    if answer.stall_after is not None:
        body = body[: answer.stall_after]
    rest = b""
    if answer.hold_after is not None:
        body, rest = body[: answer.hold_after], body[answer.hold_after :]
    try:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)
        if rest:
            await answer.goes_on.wait()
            await stream.send_all(rest)
        while answer.stall_after is not None and await stream.receive_some(65536):
            pass
    except trio.BrokenResourceError:
        return False
    return answer.cut_after is None and answer.stall_after is None


@asynccontextmanager
async def scripted_registry(
    image: Picture, fault: Fault = lambda _: None, *, keep_alive: bool = True
) -> AsyncIterator[ScriptedRegistry]:
    """A registry with one image; ``fault`` may answer in its place. It may close after each answer."""
    async with trio.open_nursery() as nursery:
        registry = ScriptedRegistry(image, fault, keep_alive=keep_alive)
        await nursery.start(registry.serve)
        yield registry
        nursery.cancel_scope.cancel()
