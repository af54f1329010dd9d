"""``copy``: what is written where, in and out of a container whose files are a folder here."""

import io
import json
import os
import stat
import tarfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest

from linkspan.plugins.standard_steps.copied_before import MAX_BYTES
from linkspan.plugins.standard_steps.copy_files import CopyStep
from linkspan.sdk.errors import DataLoss, InvalidArgument, NotFound
from linkspan.sdk.model.files import PathStat


class Containers:
    """One container, ``web``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sent: bytes | None = None

    def inspect(self, ref):
        if ref != "web":
            raise NotFound(f"No such container: {ref}")
        return type("Found", (), {"id": "web"})

    def list(self, query=None):
        return []

    def at(self, path):
        place = self.root / path.lstrip("/")
        if not os.path.lexists(place):
            raise NotFound("no such path", code="path_not_found")
        return place

    async def stat_path(self, ref, path):
        place = self.at(path)
        return PathStat(name=place.name, size_bytes=0, mode=place.lstat().st_mode, mtime_ns=0)

    @asynccontextmanager
    async def read_path(self, ref, path):
        place = self.at(path)
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            archive.add(place, place.name)

        async def pieces():
            yield self.sent or data.getvalue()

        yield await self.stat_path(ref, path), pieces()

    async def write_path(self, ref, path, source, **_):
        data = io.BytesIO(b"".join([piece async for piece in source]))
        with tarfile.open(fileobj=data) as archive:
            # Not all the Pythons that run this know the argument ``filter``.
            archive.extraction_filter = lambda member, _: member
            archive.extractall(self.at(path))

    async def remove_paths(self, ref, path, names):
        left = []
        for name in names:
            place = self.at(path) / name
            try:
                place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
            except OSError:
                left.append(name)
        return left


@pytest.fixture
def containers(tmp_path, fake_host):
    root = tmp_path / "container"
    (root / "srv/www").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc/conf").write_text("conf")
    made = Containers(root)
    fake_host.fake_engine = type("Engine", (), {"containers": made})
    return made


def tree(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


async def copy(fake_host, intent, context, source, target):
    wish = intent("copy", **{"from": source, "to": target})
    (wish.workspace / "dist/sub").mkdir(parents=True, exist_ok=True)
    (wish.workspace / "dist/a").write_text("a")
    (wish.workspace / "dist/sub/b").write_text("b")
    return wish.workspace, await CopyStep(fake_host).apply(wish, context)


@pytest.mark.parametrize(
    ("source", "target", "made"),
    [
        ("dist", "web:/srv/www", ["www/dist/a", "www/dist/sub/b"]),
        ("dist/.", "web:/srv/www", ["www/a", "www/sub/b"]),
        ("dist", "web:/srv/new", ["new/a", "new/sub/b"]),
        ("dist/a", "web:/srv/www", ["www/a"]),
        ("dist/a", "web:/srv/c", ["c"]),
        ("./dist/a", "web:srv/www/", ["www/a"]),
    ],
)
async def test_names_in_a_container_are_those_of_docker_cp(
    fake_host, containers, intent, context, source, target, made
):
    _, outputs = await copy(fake_host, intent, context, source, target)
    assert tree(containers.root / "srv") == made
    assert outputs == {"files": len(made)}


@pytest.mark.parametrize(
    ("source", "target", "made"),
    [
        ("web:/etc/conf", "dist", "dist/conf"),
        ("web:/etc/conf", "new", "new"),
        ("web:/etc", "new", "new/conf"),
        ("web:/etc", "dist", "dist/etc/conf"),
        ("web:/etc/.", "dist", "dist/conf"),
    ],
)
async def test_names_in_the_workspace_are_those_of_docker_cp(
    fake_host, containers, intent, context, source, target, made
):
    workspace, _ = await copy(fake_host, intent, context, source, target)
    assert (workspace / made).read_text() == "conf"


@pytest.mark.parametrize(
    ("source", "target"),
    [("a", "b"), ("web:/a", "web:/b"), ("web:/etc", "../out"), ("../../etc", "web:/srv")],
)
async def test_what_makes_no_sense_is_refused(
    fake_host, containers, intent, context, source, target
):
    with pytest.raises(InvalidArgument):
        await copy(fake_host, intent, context, source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("gone", "web:/srv"),
        ("dist/a/.", "web:/srv"),
        ("web:/gone", "x"),
        ("dist/a", "web:/new/"),
        ("web:/etc/conf", "x/"),
    ],
)
async def test_what_is_not_there_is_named(fake_host, containers, intent, context, source, target):
    with pytest.raises(NotFound):
        await copy(fake_host, intent, context, source, target)


OUTSIDE = f"linkspan-hostile-{os.getpid()}"
"""A name that nobody else has in ``/tmp``."""


def hostile(*entries):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, kind, link in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            archive.addfile(entry)
    return data.getvalue()


@pytest.mark.parametrize(
    "sent",
    [
        hostile((f"etc/../../{OUTSIDE}", tarfile.REGTYPE, "")),
        hostile(("/abs", tarfile.REGTYPE, "")),
        hostile(("etc/l", tarfile.SYMTYPE, "/tmp"), (f"etc/l/{OUTSIDE}", tarfile.REGTYPE, "")),
        hostile(("etc/l", tarfile.SYMTYPE, "../../.."), (f"etc/l/{OUTSIDE}", tarfile.REGTYPE, "")),
        b"nonsense" * 200,
    ],
)
async def test_a_hostile_container_writes_nothing_outside(
    fake_host, containers, intent, context, tmp_path, sent
):
    containers.sent = sent
    before = {p for p in tmp_path.rglob("*") if "new" not in p.parts and "dist" not in p.parts}
    with suppress(InvalidArgument, DataLoss):
        await copy(fake_host, intent, context, "web:/etc", "new")
    after = {p for p in tmp_path.rglob("*") if "new" not in p.parts and "dist" not in p.parts}
    assert after - before <= {p for p in after if p.name in ("work", "workspace")}
    assert not Path("/tmp", OUTSIDE).exists()


async def test_the_mode_of_a_file_is_kept(fake_host, containers, intent, context):
    (containers.root / "etc/conf").chmod(0o755)
    workspace, _ = await copy(fake_host, intent, context, "web:/etc/conf", "new")
    assert stat.S_IMODE((workspace / "new").stat().st_mode) == 0o755


def content(folder):
    """Of every file, link and folder."""
    return {
        path.relative_to(folder).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.is_file() and path.read_bytes(),
            path.lstat().st_mode,
        )
        for path in folder.rglob("*")
    }


async def there_and_back(fake_host, intent, context, source, target):
    wish = intent("copy", **{"from": source, "to": target})
    dist = wish.workspace / "dist"
    (dist / "sub/deep").mkdir(parents=True)
    (dist / "a").write_text("new a")
    (dist / "sub/b").write_text("new b")
    (dist / "sub/deep/c").write_text("new c")
    (dist / "link").symlink_to("a")
    step = CopyStep(fake_host)
    planned = await step.plan(wish)
    wish = attrs.evolve(wish, undo=json.loads(json.dumps(planned.undo)))
    await step.apply(wish, context)
    return step, wish


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("dist", "web:/srv/www"),
        ("dist/.", "web:/srv/www"),
        ("dist", "web:/srv/new"),
        ("dist/a", "web:/srv/www/a"),
        ("dist/a", "web:/srv/www/"),
        ("dist/sub/.", "web:/srv/www/sub"),
    ],
)
async def test_what_lay_in_a_container_is_put_back(
    fake_host, containers, intent, context, source, target
):
    www = containers.root / "srv/www"
    (www / "sub").mkdir(mode=0o700)
    (www / "a").write_text("old a: \u00e4")
    (www / "a").chmod(0o600)
    (www / "link").symlink_to("elsewhere")
    (www / "sub/b").write_bytes(b"\xff\x00old b")
    (www / "sub/other").write_text("not touched")
    before = content(containers.root)
    step, wish = await there_and_back(fake_host, intent, context, source, target)
    assert content(containers.root) != before
    said = await step.undo(wish, context)
    assert content(containers.root) == before
    # Twice is once.
    await step.undo(wish, context)
    assert content(containers.root) == before
    assert "in /srv" in said["detail"]


async def test_what_others_have_put_into_a_new_folder_stays(fake_host, containers, intent, context):
    step, wish = await there_and_back(fake_host, intent, context, "dist", "web:/srv/new")
    (containers.root / "srv/new/sub/theirs").write_text("x")
    said = await step.undo(wish, context)
    assert tree(containers.root / "srv") == ["new/sub/theirs"]
    assert "new/sub stays: something else is in it" in said["detail"]


async def test_more_than_a_journal_takes_is_copied_without_a_way_back(
    fake_host, containers, intent, context
):
    (containers.root / "srv/www/a").write_bytes(bytes(MAX_BYTES))
    wish = intent("copy", **{"from": "a", "to": "web:/srv/www/"})
    (wish.workspace / "a").write_text("a")
    planned = await CopyStep(fake_host).plan(wish)
    assert planned.undo == {}
    assert "no way back" in planned.changes[0].detail
    await CopyStep(fake_host).apply(wish, context)
    assert any("no way back" in line for line in context.lines)
    assert (containers.root / "srv/www/a").read_text() == "a"


async def test_a_container_that_is_gone_needs_no_undo(fake_host, containers, intent, context):
    step, wish = await there_and_back(fake_host, intent, context, "dist", "web:/srv/www")
    gone = attrs.evolve(wish, undo={**wish.undo, "container": "gone"})
    assert (await step.undo(gone, context))["detail"] == "the container is gone"
