"""Archives of images, files of containers and commit, on fakes."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile

import pytest
import trio
import zstandard

from linkspan.core.engine.archive.compression import kind_of, plain
from linkspan.core.engine.archive.tar_stream import TarStream
from linkspan.sdk.errors import DataLoss, InvalidArgument, LinkspanError, NotFound
from linkspan.sdk.host import CommitSpec
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.files import Change
from linkspan.sdk.platform import host_platform
from linkspan.sdk.progress import Progress

from .conftest import IMAGE, World, layer, serve_image

PACKERS = {
    "": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


class pieces:
    """A body as it arrives."""

    def __init__(self, data: bytes, size: int = 1000) -> None:
        self._parts = [data[start : start + size] for start in range(0, len(data), size)]

    def __aiter__(self) -> "pieces":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop(0)


async def saved(world: World, *refs: str) -> bytes:
    async with world.engine.images.save(refs) as archive:
        return b"".join([piece async for piece in archive])


def names_in(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [info.name for info in tar]


def docker_archive(
    *tars: bytes, tag: str = "old:1", diff_ids: list[str] | None = None, **more: bytes
) -> bytes:
    """As Docker before version 25 writes it."""
    found = ["sha256:" + hashlib.sha256(tar).hexdigest() for tar in tars]
    config = json.dumps(
        {"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids or found}}
    ).encode()
    entry = {
        "Config": "c.json",
        "RepoTags": [tag],
        "Layers": [f"{at}/layer.tar" for at in range(len(tars))],
    }
    files = {f"{at}/layer.tar": tar for at, tar in enumerate(tars)}
    files |= {"c.json": config, "manifest.json": json.dumps([entry]).encode(), **more}
    return layer(files)


# -- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_every_compression_is_undone_in_pieces_of_any_size(kind: str, size: int) -> None:
    data = b"some text, " * 3000 if size > 1 else b"some text, " * 60
    packed = PACKERS[kind](data)
    assert kind_of(packed) == kind
    assert b"".join([piece async for piece in plain(pieces(packed, size))]) == data


@pytest.mark.parametrize("kind", [kind for kind in PACKERS if kind])
async def test_a_cut_or_broken_stream_is_said_to_be(kind: str) -> None:
    packed = PACKERS[kind](bytes(range(256)) * 40)
    broken = packed[:20] + bytes(b ^ 0xFF for b in packed[20:40]) + packed[40:]
    # zstd's frames have no checksum here.
    for data in (packed[:-6], broken) if kind != "zstd" else (packed[:-6],):
        with pytest.raises(DataLoss):
            async for _ in plain(pieces(data)):
                pass


async def test_a_tar_is_read_member_by_member() -> None:
    long_name = "d/" * 80 + "file"
    buffer = io.BytesIO()
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer.seek(0)
        buffer.truncate()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, data in (("a", b"x" * 1000), (long_name, b"y"), ("empty", b"")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("sub/link")
            link.type, link.linkname = tarfile.SYMTYPE, "../a"
            tar.addfile(link)
        stream = TarStream(pieces(buffer.getvalue(), 333))
        found = []
        while (member := await stream.next()) is not None:
            # The first is skipped unread, the second read in part.
            head = await stream.peek(1) if len(found) else b""
            found.append((member.name, member.size_bytes, member.link, head))
        assert found == [
            ("a", 1000, "", b""),
            (long_name, 1, "", b"y"),
            ("empty", 0, "", b""),
            ("sub/link", 0, "a", b""),
        ]


# -- save and load ----------------------------------------------------------------------------


async def test_a_saved_image_is_loaded_as_it_was(world: World) -> None:
    image = world.engine.images.inspect(IMAGE)
    archive = await saved(world, IMAGE)
    assert {"index.json", "manifest.json", "oci-layout"} <= set(names_in(archive))
    await world.engine.images.remove(IMAGE)
    assert world.snapshots.store.layers == {}
    said: list[Progress] = []
    (loaded,) = await world.engine.images.load(pieces(archive), progress=said.append)
    assert (loaded.id, loaded.repo_tags, loaded.chain_ids) == (
        image.id,
        image.repo_tags,
        image.chain_ids,
    )
    assert [blob.digest for blob in loaded.layers if blob] == [
        blob.digest for blob in image.layers if blob
    ]
    assert said[-1].stream == f"Loaded image: {IMAGE}\n"
    # Its manifest was in the archive: a push sends the same bytes.
    result = await world.engine.images.push(IMAGE)
    assert result.digest == world.registry.repositories["registry.test/app"].tags["1"]


async def test_what_images_share_is_saved_once(world: World) -> None:
    base = layer({"base": b"1"})
    serve_image(world.registry, [base, layer({"two": b"2"})], tag="2")
    serve_image(world.registry, [base, layer({"three": b"3"})], tag="3")
    for tag in ("2", "3"):
        await world.engine.images.pull(f"registry.test/app:{tag}")
    archive = await saved(world, "registry.test/app:2", "registry.test/app:3")
    names = names_in(archive)
    assert len(names) == len(set(names))
    # A name without a tag is all tags.
    everything = await saved(world, "registry.test/app")
    with tarfile.open(fileobj=io.BytesIO(everything)) as tar:
        entries = json.load(tar.extractfile("manifest.json"))
    assert sorted(e["RepoTags"][0] for e in entries) == [f"registry.test/app:{t}" for t in "123"]


async def test_archives_of_old_docker_are_loaded(open_world) -> None:
    async with open_world() as world:
        base, top = layer({"a": b"1"}), layer({"b": b"2"})
        archive = docker_archive(base, top, base)
        (image,) = await world.engine.images.load(pieces(gzip.compress(archive)))
        assert image.repo_tags == ("old:1",)
        assert len(image.chain_ids) == 3
        assert world.snapshots.merged(image.chain_ids[-1]).keys() == {"a", "b"}


async def test_a_tag_is_taken_from_the_image_that_had_it(open_world) -> None:
    async with open_world() as world:
        (old,) = await world.engine.images.load(pieces(docker_archive(layer({"a": b"1"}))))
        said: list[Progress] = []
        archive = docker_archive(layer({"a": b"2"}))
        (new,) = await world.engine.images.load(pieces(archive), progress=said.append)
        text = "".join(p.stream for p in said)
        assert f"The image old:1 already exists, renaming the old one with ID {old.id}" in text
        assert world.engine.images.inspect("old:1").id == new.id
        assert world.engine.images.inspect(old.id).repo_tags == ()


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (b"", "does not contain a manifest.json"),
        (layer({"manifest.json": b"[1"}), "is no JSON"),
        (layer({"manifest.json": b"null"}), "manifest cannot be null"),
        (layer({"manifest.json": b'[{"Config": "c"}]'}), "'c' is missing"),
        (layer({"/../manifest.json": b"[]"}), "leads out of it"),
        (docker_archive(layer({"a": b"1"}))[:2000], "truncated"),
        (docker_archive(layer({"a": b"1"}), diff_ids=["sha256:" + "0" * 64]), "invalid diffID"),
        (docker_archive(layer({"a": b"1"}), diff_ids=["x", "y"]), "layers length mismatch"),
        (docker_archive(layer({"../a": b"1"})), "leaves the root"),
        (docker_archive(b"no tar" * 200), "corrupt"),
        (docker_archive(layer({"a": b"1"}), tag="NO"), "invalid reference"),
        (layer({"index.json": b"{}"}), "invalid"),
    ],
)
async def test_a_bad_archive_is_refused_and_leaves_nothing(open_world, archive, words) -> None:
    async with open_world() as world:
        with pytest.raises(LinkspanError, match=words):
            await world.engine.images.load(pieces(archive))
        assert world.engine.images.list() == []
        assert world.content.ingests == {}
        assert (world.snapshots.store.layers, world.content.blobs) == ({}, {})


def layout(*platforms: str, names: tuple[str, ...] = ("registry.test/many:1",)) -> bytes:
    """An OCI image layout: an index in an index, one image a platform."""
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(kind: str, data: bytes, **more: object) -> dict[str, object]:
        digits = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digits}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digits}", "size": len(data), **more}

    oci = "application/vnd.oci.image"
    entries = []
    for platform in platforms:
        system, _, architecture = platform.partition("/")
        tar = layer({"of": platform.encode()})
        config = {
            "os": system,
            "architecture": architecture,
            "rootfs": {
                "type": "layers",
                "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "config": blob(f"{oci}.config.v1+json", json.dumps(config).encode()),
            "layers": [blob(f"{oci}.layer.v1.tar+gzip", gzip.compress(tar))],
        }
        data = json.dumps(manifest).encode()
        shown = {"os": system, "architecture": architecture}
        entries.append(blob(f"{oci}.manifest.v1+json", data, platform=shown))
    inner = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    notes = [{"io.containerd.image.name": name} for name in names]
    outer = [blob(f"{oci}.index.v1+json", inner, annotations=note) for note in notes]
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": outer}).encode()
    return layer(files)


async def test_of_a_layout_the_image_for_the_platform_is_loaded(open_world) -> None:
    async with open_world() as world:
        host = host_platform()
        other = "arm64" if host.architecture != "arm64" else "s390x"
        names = ("registry.test/many:1", "registry.test/other:2")
        archive = layout(f"linux/{other}", str(host), names=names)
        (image,) = await world.engine.images.load(pieces(archive))
        assert image.config.platform.architecture == host.architecture
        assert image.repo_tags == names
        found = world.snapshots.merged(image.chain_ids[0])["of"]
        assert found.data == str(host).encode()
        (image,) = await world.engine.images.load(pieces(archive), platform=f"linux/{other}")
        assert image.config.platform.architecture == other
        with pytest.raises(NotFound, match="no image for linux/riscv64"):
            await world.engine.images.load(pieces(archive), platform="linux/riscv64")


async def test_an_unknown_image_cannot_be_saved(world: World) -> None:
    with pytest.raises(NotFound, match="No such image: nothing:1"):
        await saved(world, IMAGE, "nothing:1")
    with pytest.raises(InvalidArgument):
        await saved(world)


# -- import -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "gzip", "xz", "bzip2"])
async def test_a_root_file_system_is_imported(open_world, kind: str) -> None:
    async with open_world() as world:
        data = PACKERS[kind](layer({"etc/name": b"x"}))
        image = await world.engine.images.import_files(
            pieces(data), reference="made", message="by hand"
        )
        assert image.repo_tags == ("made:latest",)
        assert image.config.history[0]["comment"] == "by hand"
        assert "etc/name" in world.snapshots.merged(image.chain_ids[0])


# -- files and commit -------------------------------------------------------------------------


async def test_files_go_into_and_come_out_of_a_container_that_does_not_run(world: World) -> None:
    containers = world.engine.containers
    box = await containers.create(ContainerSpec(image=IMAGE))
    await containers.write_path(box.id, "/", pieces(layer({"new": b"x"})))
    found = await containers.stat_path(box.id, "/new")
    assert (found.name, found.size_bytes) == ("new", 1)
    async with containers.read_path(box.id, "new") as (_, archive):
        assert names_in(b"".join([piece async for piece in archive])) == ["new"]
    assert await containers.changes(box.id) == [Change(path="/new", kind=1)]
    async with containers.export(box.id) as archive:
        assert "new" in names_in(b"".join([piece async for piece in archive]))
    # Nobody looks any more: the root is not mounted.
    assert world.snapshots.store.snapshots[box.id].target is None
    await containers.rename(box.id, "box")
    with pytest.raises(NotFound, match="Could not find the file /none in container box"):
        await containers.stat_path("box", "/none")


async def test_a_container_is_committed_and_goes_on(world: World) -> None:
    containers = world.engine.containers
    spec = ContainerSpec(image=IMAGE, env=("A=1",), command=("sleep", "7"), labels={"k": "v"})
    box = await containers.create(spec)
    await containers.start(box.id)
    await containers.write_path(box.id, "/", pieces(layer({"new": b"x"})))
    image = await containers.commit(
        box.id, CommitSpec(reference="made:1", author="me", message="done")
    )
    base = world.engine.images.inspect(IMAGE)
    assert image.parent == base.id
    assert image.chain_ids[:-1] == base.chain_ids
    assert (image.repo_tags, image.config.author) == (("made:1",), "me")
    assert "A=1" in image.config.env
    assert image.config.command == ("sleep", "7")
    assert image.config.labels["k"] == "v"
    assert image.config.history[-1]["comment"] == "done"
    assert "new" in world.snapshots.merged(image.chain_ids[-1])
    assert containers.inspect(box.id).state.running
    # Nothing has changed since: no further layer, whatever the config says.
    empty = await containers.create(ContainerSpec(image="made:1"))
    again = await containers.commit(empty.id)
    assert again.chain_ids == image.chain_ids
