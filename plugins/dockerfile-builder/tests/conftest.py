# ruff: noqa: ASYNC230, PTH102, PTH103, PTH104, PTH108, PTH114, PTH115, PTH118, PTH120, PTH123, PTH211
"""Stand-ins for what the core lends the builder: snapshots that are plain folders, images in memory.

RUN is a Python function here: the builder's part ends at ``engine.run_in_snapshot``.
"""

import hashlib
import importlib.metadata
import io
import os
import shutil
import stat
import tarfile
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import trio
from dockerfiles import dockerfile

from linkspan.plugins.dockerfile_builder.config import DockerfileBuilderConfig
from linkspan.plugins.dockerfile_builder.driver import DockerfileBuilder
from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.sdk.drivers.builder import BuildRequest
from linkspan.sdk.drivers.snapshots import Layer
from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.image_config import chain_ids, digest_of, parse_image_config
from linkspan.sdk.model.image import Image
from linkspan.sdk.model.process import Chunk, StreamKind
from linkspan.sdk.testing.host import FakeHost


def listing(root):
    """Relative path → what is there, without times; enough to tell two trees apart."""
    out = {}
    for folder, names, files in os.walk(root):
        for name in sorted(names + files):
            path = os.path.join(folder, name)
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            data = ""
            if stat.S_ISLNK(info.st_mode):
                data = os.readlink(path)
            elif stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    data = hashlib.sha256(file.read()).hexdigest()
            mode = stat.S_IMODE(info.st_mode)
            out[os.path.relpath(path, root)] = (kind, mode, info.st_uid, info.st_gid, data)
    return out


@attrs.define
class FolderSnapshots:
    """A layer is a full copy of its parent with the changes in it."""

    root: str
    known: dict = attrs.field(factory=dict)
    open_keys: dict = attrs.field(factory=dict)
    mounts: dict = attrs.field(factory=dict)
    committed: int = 0

    def folder(self, name):
        return os.path.join(self.root, name.replace(":", "_"))

    async def prepare(self, key, parent):
        if key in self.open_keys:
            raise Conflict(key)
        if parent and parent not in self.known:
            raise NotFound(parent)
        if parent:
            copy_tree(self.folder(parent), self.folder(key))
        else:
            os.mkdir(self.folder(key), 0o755)
        self.open_keys[key] = parent

    async def mount(self, key, target, *, volatile=False, then=None):
        if key not in self.open_keys:
            raise NotFound(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(self.folder(key))
        self.mounts[key] = target
        if then is not None:
            then(target)

    async def unmount(self, key):
        target = self.mounts.pop(key, None)
        if target is not None:
            target.unlink()

    async def stat(self, name):
        if name not in self.known:
            raise NotFound(name)
        return self.known[name]

    async def layers(self):
        return list(self.known.values())

    @asynccontextmanager
    async def view(self, name):
        await self.stat(name)
        yield Path(self.folder(name))

    async def commit(self, key, *, parent):
        assert key not in self.mounts, "committed while mounted"
        base = self.open_keys.pop(key)
        if base != parent:
            # --link: the content was made on nothing and is laid over the parent.
            merged = self.folder(key) + ".merged"
            copy_tree(self.folder(parent), merged)
            overlay(self.folder(key), merged)
            shutil.rmtree(self.folder(key))
            os.rename(merged, self.folder(key))
        before = listing(self.folder(parent)) if parent else {}
        changes = {p: v for p, v in listing(self.folder(key)).items() if before.get(p) != v}
        gone = sorted(set(before) - set(listing(self.folder(key))))
        diff_id = digest_of(repr((sorted(changes.items()), gone)).encode())
        lower = []
        name = parent
        while name:
            lower.insert(0, self.known[name].diff_id)
            name = self.known[name].parent
        name = chain_ids([*lower, diff_id])[-1]
        self.committed += 1
        if name in self.known:
            shutil.rmtree(self.folder(key))
        else:
            os.rename(self.folder(key), self.folder(name))
            size = sum(len(p) for p in changes)
            self.known[name] = Layer(name=name, parent=parent, diff_id=diff_id, size_bytes=size)
        return self.known[name]

    async def remove(self, key):
        if self.open_keys.pop(key, None) is not None:
            shutil.rmtree(self.folder(key))

    async def remove_layer(self, name):
        await self.stat(name)
        children = [v.name for v in self.known.values() if v.parent == name]
        if children or name in self.open_keys.values():
            raise Conflict(name)
        del self.known[name]
        shutil.rmtree(self.folder(name))


def copy_tree(source, target):
    os.mkdir(target)
    overlay(source, target)


def overlay(source, target):
    """Lay one tree over another, keeping hard links inside it."""
    links = {}
    shutil.copystat(source, target)
    for folder, names, files in os.walk(source):
        relative = os.path.relpath(folder, source)
        for name in names + files:
            one, two = os.path.join(folder, name), os.path.join(target, relative, name)
            info = os.lstat(one)
            directory = stat.S_ISDIR(info.st_mode)
            if os.path.lexists(two) and not (directory and not os.path.islink(two)):
                os.unlink(two)
            if directory:
                os.makedirs(two, exist_ok=True)
            elif info.st_ino in links:
                os.link(links[info.st_ino], two, follow_symlinks=False)
                continue
            elif stat.S_ISLNK(info.st_mode):
                os.symlink(os.readlink(one), two)
            elif stat.S_ISREG(info.st_mode):
                shutil.copyfile(one, two)
            else:
                os.mknod(two, info.st_mode, info.st_rdev)
            if not directory:
                links[info.st_ino] = two
            os.chown(two, info.st_uid, info.st_gid, follow_symlinks=False)
            shutil.copystat(one, two, follow_symlinks=False)
    for folder, names, _ in os.walk(source, topdown=False):
        for name in names:
            one = os.path.join(folder, name)
            if not os.path.islink(one):
                shutil.copystat(one, os.path.join(target, os.path.relpath(one, source)))


@attrs.define
class FakeImages:
    """Images in memory; ``remote`` is what can be pulled."""

    stored: dict = attrs.field(factory=dict)
    tags: dict = attrs.field(factory=dict)
    remote: dict = attrs.field(factory=dict)
    pulled: list = attrs.field(factory=list)
    pushed: list = attrs.field(factory=list)
    documents: dict = attrs.field(factory=dict)

    def put(self, config, chain):
        image = Image(id=digest_of(config), config=parse_image_config(config), chain_ids=chain)
        self.documents[image.id] = config
        self.stored[image.id] = image
        return image

    def inspect(self, ref):
        name = ref if ref in self.stored or ":" in ref else f"{ref}:latest"
        found = self.stored.get(name) or self.stored.get(self.tags.get(name, ""))
        if found is None:
            raise NotFound(f"No such image: {ref}")
        return found

    def list(self):
        return list(self.stored.values())

    async def pull(self, reference, *, credentials=None, platform="", progress=None):
        self.pulled.append((reference, credentials))
        if reference not in self.remote:
            raise NotFound(f"pull access denied for {reference}")
        config, chain = self.remote[reference]
        image = self.put(config, chain)
        self.tags[reference.removeprefix("docker.io/library/")] = image.id
        return image

    async def push(self, reference, *, credentials=None, progress=None):
        image = self.inspect(reference.removeprefix("docker.io/library/"))
        self.pushed.append((reference, credentials))
        self.remote[reference] = (self.documents[image.id], image.chain_ids)

    async def remove(self, ref):
        self.stored.pop(self.tags.pop(ref.removeprefix("docker.io/library/")))

    async def add(self, new, *, tags=()):
        image = self.put(new.config, new.chain_ids)
        for tag in tags:
            self.tags[tag.removeprefix("docker.io/library/")] = image.id
        return image


@attrs.define
class FakeEngine:
    """RUN calls ``runner(step, folder, say)``, which returns the exit code."""

    snapshots: FolderSnapshots
    images: FakeImages = attrs.field(factory=FakeImages)
    runs: list = attrs.field(factory=list)
    runner: object = None

    async def run_in_snapshot(self, run, output):
        self.runs.append(run)

        def say(text, stream=StreamKind.STDOUT):
            output(Chunk(stream, text if isinstance(text, bytes) else text.encode()))

        folder = self.snapshots.folder(run.snapshot)
        clean = run.watch_root(Path(folder))
        for mount in run.mounts:
            # The runtime makes a mount point where there is none.
            place = Path(folder + mount.target)
            place.parent.mkdir(parents=True, exist_ok=True)
            if mount.source is None or mount.source.is_dir():
                place.mkdir(exist_ok=True)
            else:
                place.touch()
        try:
            return await self._command(run, folder, say)
        finally:
            clean()

    async def _command(self, run, folder, say):
        if self.runner is not None:
            return await self.runner(run, folder, say)
        script = run.args[-1]
        if script.startswith("exit "):
            return int(script.split()[1])
        if script.startswith("write "):
            _, path, text = script.split(" ", 2)
            os.makedirs(os.path.dirname(folder + path), exist_ok=True)
            with open(folder + path, "w") as file:
                file.write(text)
        if script.startswith("echo "):
            say(script[5:] + "\n")
        return 0


def tar_of(files):
    """A tar of ``{path: text}``; a path that ends with / is a directory, tuples are links."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(path.rstrip("/"))
            info.mtime = 1_000_000_000
            if path.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            elif isinstance(text, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, text[0]
                tar.addfile(info)
            else:
                content = text if isinstance(text, bytes) else text.encode()
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


async def pieces(data, size=4096):
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Gate:
    """A RUN that begins, and ends when it is let through."""

    def __init__(self, workshop):
        self.began = trio.Event()
        self.open = trio.Event()
        workshop.engine.runner = self

    async def __call__(self, run, folder, say):
        self.began.set()
        await self.open.wait()
        return 0


@attrs.define
class Workshop:
    """A driver with its stand-ins."""

    driver: DockerfileBuilder
    engine: FakeEngine
    snapshots: FolderSnapshots
    host: FakeHost
    said: str = ""
    aux: list = attrs.field(factory=list)

    async def build(self, files, **request):
        """Build from ``{path: text}``; return the result and the stream's text."""
        told = []
        async with AsyncExitStack() as stack:
            context = files
            if isinstance(files, dict):
                context = await stack.enter_async_context(aclosing(pieces(tar_of(files))))
            try:
                result = await self.driver.build(
                    BuildRequest(context=context, **request), told.append
                )
            finally:
                self.said = "".join(progress.stream for progress in told)
                self.aux = [progress.aux for progress in told if progress.aux]
        return result, self.said

    def tar(self, files):
        return tar_of(files)

    def gate(self):
        return Gate(self)

    async def fails(self, *lines, error=DockerfileError, **request):
        """Build from lines; the error that it must end with."""
        with pytest.raises(error) as caught:
            await self.build(dockerfile(*lines, a="A"), **request)
        return caught.value

    def image(self, ref):
        return self.engine.images.inspect(ref)

    def root(self, ref):
        image = self.image(ref)
        return self.snapshots.folder(image.chain_ids[-1]) if image.chain_ids else None

    @asynccontextmanager
    async def tree(self, ref):
        """The image's file system as a folder; None if it has no layers."""
        chain = self.image(ref).chain_ids
        if not chain:
            yield None
            return
        async with self.snapshots.view(chain[-1]) as folder:
            yield str(folder)


@pytest.fixture
async def workshop(fake_host, tmp_path):
    folder = tmp_path / "layers"
    folder.mkdir()
    snapshots = FolderSnapshots(str(folder))
    engine = FakeEngine(snapshots)
    fake_host.drivers["snapshots", ""] = snapshots
    fake_host.fake_engine = engine
    async with DockerfileBuilder.open(DockerfileBuilderConfig(), fake_host) as driver:
        yield Workshop(driver, engine, snapshots, fake_host)
    assert not snapshots.open_keys, "a build left a snapshot"
    assert not snapshots.mounts, "a build left a mount"


@pytest.fixture
async def overlay_workshop(fake_host, tmp_path):
    """On the overlay driver, if it is installed; RUN is a program in a chroot."""
    found = importlib.metadata.entry_points(group="linkspan.snapshots.v1", name="overlay")
    if not found:
        pytest.skip("no driver 'overlay' is installed")
    kind = next(iter(found)).load()
    storage = FakeHost(root=tmp_path / "snapshots", nursery=fake_host.nursery)
    async with kind.open(kind.config_type(), storage) as snapshots:
        await snapshots.recover()
        engine = ChrootEngine(snapshots, tmp_path / "run-root")
        fake_host.drivers["snapshots", ""] = snapshots
        fake_host.fake_engine = engine
        async with DockerfileBuilder.open(DockerfileBuilderConfig(), fake_host) as driver:
            yield Workshop(driver, engine, snapshots, fake_host)
    mounts = Path("/proc/self/mounts").read_text()
    assert str(tmp_path) not in mounts, "a build left a mount"


@attrs.define
class ChrootEngine:
    """RUN in a chroot: enough for what the builder has to do with a command's changes."""

    snapshots: object
    folder: Path
    images: FakeImages = attrs.field(factory=FakeImages)

    async def run_in_snapshot(self, run, output):
        await self.snapshots.mount(run.snapshot, self.folder)
        try:
            ended = await trio.run_process(
                ["/usr/sbin/chroot", str(self.folder), *run.args],
                env=dict(entry.split("=", 1) for entry in run.env),
                capture_stdout=True,
                check=False,
            )
            output(Chunk(StreamKind.STDOUT, ended.stdout))
            return ended.returncode
        finally:
            with trio.CancelScope(shield=True):
                await self.snapshots.unmount(run.snapshot)


@pytest.fixture
def tools():
    return SimpleNamespace(tar_of=tar_of, pieces=pieces)


@pytest.fixture
async def file_server(nursery):
    """A small HTTP server that answers as the vectors say; yields ``host:port``."""
    import base64
    import functools
    import json

    cases = json.loads((Path(__file__).parent / "data" / "copy-rules.json").read_text())["cases"]
    archive = next(
        base64.b64decode(entry["raw"].removeprefix("base64:"))
        for case in cases
        for entry in case.get("context", ())
        if isinstance(entry, dict) and entry["path"] == "t.tgz"
    )

    async def answer(stream):
        async with stream:
            request = await stream.receive_some(65536)
            path = request.split()[1].decode().partition("?")[0]
            status, extra, body = "200 OK", "", b"REMOTE"
            if path == "/404":
                status, body = "404 Not Found", b"no"
            if path.endswith(".tgz"):
                body = archive
            if path.startswith("/lm/"):
                extra = "Last-Modified: Tue, 09 Nov 2004 11:33:20 GMT\r\n"
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}"
            await stream.send_all(f"{head}Connection: close\r\n\r\n".encode() + body)

    listeners = await nursery.start(functools.partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    host, port = listeners[0].socket.getsockname()[:2]
    yield f"{host}:{port}"
    nursery.cancel_scope.cancel()
