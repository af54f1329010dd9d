"""Hostile and odd layers: each case of data/hostile-layers.json behaves as its ``required`` says."""

import gzip
import hashlib
import json
import os
import stat
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import zstandard

from linkspan.plugins.overlay_snapshots.config import OverlaySnapshotsConfig
from linkspan.plugins.overlay_snapshots.driver import OverlaySnapshots
from linkspan.plugins.overlay_snapshots.trees import remove_tree
from linkspan.sdk.drivers.snapshots import ApplyRequest
from linkspan.sdk.errors import DataLoss, InvalidArgument, LinkspanError, TooLarge
from linkspan.sdk.testing.host import FakeHost

VECTORS = json.loads((Path(__file__).parent / "data" / "hostile-layers.json").read_text())["cases"]

ELSEWHERE = {
    # Manifests, indexes, configs and archives are read by the registry driver and the engine.
    "layers-vs-diffids",
    "history-vs-layers",
    "config-not-json",
    "huge-manifest",
    "huge-index",
    "duplicate-json-keys",
    "foreign-urls",
    "data-field",
    "manifest-json-path",
    "repositories-only",
    "layout-blob-path",
    "index-loop",
}

# Building tars by hand, since Python's tarfile refuses or repairs most of this.


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: bytes = b"%011o\0" % 1_700_000_000,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    magic: bytes = b"ustar\x0000",
    sparse: list[tuple[int, int]] | None = None,
    real_size: int = 0,
    checksum: int | None = None,
) -> bytes:
    def field(value: int, width: int) -> bytes:
        if value >= 8 ** (width - 1):
            return b"\x80" + value.to_bytes(width - 1, "big")
        return b"%0*o\0" % (width - 1, value)

    block = b"".join(
        (
            name[:100].ljust(100, b"\0"),
            field(mode, 8),
            field(uid, 8),
            field(gid, 8),
            field(size, 12),
            mtime,
            b" " * 8,
            kind,
            link[:100].ljust(100, b"\0"),
            magic,
            bytes(64),
            field(device[0], 8),
            field(device[1], 8),
        )
    )
    if sparse is not None:
        pairs = b"".join(b"%011o\0%011o\0" % pair for pair in sparse)
        block = block.ljust(386, b"\0") + pairs.ljust(97, b"\0") + b"%011o\0" % real_size
    block = block.ljust(512, b"\0")
    total = sum(block) if checksum is None else checksum
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes | str, data: bytes = b"x", **fields: Any) -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    return header(raw, size=len(data), **fields) + padded(data)


def folder(name: str, mode: int = 0o755, **fields: Any) -> bytes:
    return header(name.encode(), b"5", mode=mode, **fields)


def symlink(name: str, target: str) -> bytes:
    return header(name.encode(), b"2", mode=0o777, link=target.encode())


def hardlink(name: str, target: str) -> bytes:
    return header(name.encode(), b"1", link=target.encode())


def records(values: list[tuple[bytes, bytes]]) -> bytes:
    out = b""
    for key, value in values:
        length = len(key) + len(value) + 3
        while len(b"%d" % length) + len(key) + len(value) + 3 != length:
            length = len(b"%d" % length) + len(key) + len(value) + 3
        out += b"%d %b=%b\n" % (length, key, value)
    return out


def pax(*values: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    data = records(list(values))
    return header(b"PaxHeaders/x", kind, size=len(data)) + padded(data)


def xattr(name: str, value: bytes) -> tuple[bytes, bytes]:
    return b"SCHILY.xattr." + name.encode(), value


def gnu_long(kind: bytes, text: bytes) -> bytes:
    data = text + b"\0"
    return header(b"././@LongLink", kind, size=len(data), magic=b"ustar  \0") + padded(data)


END = bytes(1024)


@attrs.frozen
class Case:
    """Layers to apply in order; then an error (class and words of its text), or lines of the tree."""

    layers: list[bytes]
    error: type[LinkspanError] | None = None
    words: str = ""
    tree: list[str] | None = None
    code: str = ""
    request: dict[str, Any] = attrs.field(factory=dict)
    config: dict[str, Any] = attrs.field(factory=dict)


def ok(*layers: bytes, tree: list[str]) -> Case:
    return Case([layer + END for layer in layers], tree=tree)


def refused(*layers: bytes, words: str = "") -> Case:
    tars = [layer + END for layer in layers]
    return Case(tars, error=InvalidArgument, code="hostile_layer", words=words)


def cases(host: str) -> dict[str, Case | Callable[[], Case]]:
    """By id; ``host`` is a folder outside with a file ``sentinel``."""
    deep_paths = ["/".join("d" * count) for count in range(1, 1501)]
    deep = b"".join(gnu_long(b"L", path.encode()) + folder("d") for path in deep_paths)
    capability = struct.pack("<IIIII", 0x02000001, 0x2000, 0, 0, 0)
    return {
        "absolute-name": ok(file("/abs/f"), tree=["d abs 0755", "f abs/f 0644 'x'"]),
        "dotdot-name": refused(file("../../bs-out"), words="leaves the root"),
        "dotdot-middle": refused(file("a/../../bs-out"), words="leaves the root"),
        "dotdot-inside": ok(file("a/../b"), tree=["f b 0644 'x'"]),
        "dot-entries": ok(
            folder("./", 0o700), file("./a"), folder(".", 0o711), tree=["f a 0644 'x'"]
        ),
        "symlink-parent-abs": ok(
            symlink("esc", f"{host}/out") + file("esc/f"),
            tree=[
                *parents_of(f"{host}/out/f"),
                f"f {host[1:]}/out/f 0644 'x'",
                f"l esc -> {host}/out",
            ],
        ),
        "symlink-parent-rel": ok(
            symlink("esc", f"../../../../../../..{host}/out") + file("esc/f"),
            tree=[
                *parents_of(f"{host}/out/f"),
                f"f {host[1:]}/out/f 0644 'x'",
                f"l esc -> ../../../../../../..{host}/out",
            ],
        ),
        "symlink-chain": ok(
            symlink("a", "b") + symlink("b", "../../out") + file("a/f"),
            tree=["d out 0755", "f out/f 0644 'x'", "l a -> b", "l b -> ../../out"],
        ),
        "symlink-loop": refused(
            symlink("a", "b") + symlink("b", "a") + file("a/f"), words="symbolic"
        ),
        "symlink-then-file-same-name": ok(
            symlink("a", f"{host}/sentinel") + file("a", b"pwn"), tree=["f a 0644 'pwn'"]
        ),
        "symlink-prev-layer": ok(
            symlink("esc", "/out") + folder("out"),
            file("esc/f"),
            tree=["d out 0755", "f out/f 0644 'x'", "l esc -> /out"],
        ),
        "symlink-dir-replaced": ok(
            folder("d") + folder("out"),
            symlink("d", "/out") + file("d/f"),
            tree=["d out 0755", "f out/f 0644 'x'", "l d -> /out"],
        ),
        "hardlink-outside-abs": refused(hardlink("h", f"{host}/sentinel"), words="missing"),
        "hardlink-outside-rel": refused(hardlink("h", "../../sentinel"), words="leaves the root"),
        "hardlink-through-symlink": ok(
            symlink("s", f"{host}/sentinel") + hardlink("h", "s"),
            tree=[f"l h -> {host}/sentinel nlink=2", f"l s -> {host}/sentinel nlink=2"],
        ),
        "hardlink-via-symlink-parent": refused(
            symlink("d", host) + hardlink("h", "d/sentinel"), words="missing"
        ),
        "hardlink-forward": refused(hardlink("h", "later") + file("later"), words="missing"),
        "hardlink-to-lower": ok(
            file("t"), hardlink("h", "t"), tree=["f h 0644 'x' nlink=2", "f t 0644 'x' nlink=2"]
        ),
        "hardlink-to-dir": refused(folder("d") + hardlink("h", "d"), words="folder"),
        "hardlink-self": refused(file("a") + hardlink("a", "a"), words="itself"),
        "duplicate-file": ok(file("a", b"1") + file("a", b"2"), tree=["f a 0644 '2'"]),
        "duplicate-type": ok(
            file("a", b"1") + folder("a") + file("a/b", b"2"), tree=["d a 0755", "f a/b 0644 '2'"]
        ),
        "file-as-parent": refused(file("a", b"1") + file("a/b", b"2"), words="a/b"),
        "lower-file-as-parent": refused(file("a", b"1"), file("a/b", b"2"), words="lower layer"),
        "missing-parents": ok(
            file("x/y/z", b"1"), tree=["d x 0755", "d x/y 0755", "f x/y/z 0644 '1'"]
        ),
        "file-over-dir": ok(
            folder("d") + file("d/k", b"1"), file("d", b"2"), tree=["f d 0644 '2'"]
        ),
        "dir-over-file": ok(
            file("d", b"1"),
            folder("d") + file("d/k", b"2"),
            tree=["d d 0755", "f d/k 0644 '2'"],
        ),
        "dir-over-symlink": ok(
            folder("e") + symlink("d", "e"),
            folder("d") + file("d/k", b"2"),
            tree=["d d 0755", "d e 0755", "f d/k 0644 '2'"],
        ),
        "dir-over-dir": ok(
            folder("d") + file("d/k", b"1"),
            folder("d", 0o700),
            tree=["d d 0700", "f d/k 0644 '1'"],
        ),
        "whiteout-file": ok(
            file("a", b"1") + file("b", b"1"), file(".wh.a", b""), tree=["f b 0644 '1'"]
        ),
        "whiteout-missing": ok(file("b", b"1"), file(".wh.nope", b""), tree=["f b 0644 '1'"]),
        "whiteout-dir": ok(folder("d") + file("d/k", b"1"), file(".wh.d", b""), tree=[]),
        "whiteout-same-layer": ok(
            folder("d") + file("d/a", b"1"),
            folder("d") + file("d/a", b"2") + file("d/.wh.a", b""),
            tree=["d d 0755", "f d/a 0644 '2'"],
        ),
        "whiteout-same-layer-first": ok(
            file("a", b"old"), file(".wh.a", b"") + file("a", b"new"), tree=["f a 0644 'new'"]
        ),
        "whiteout-dotdot": refused(
            folder("d") + file("d/k", b"1"), file("d/.wh...", b""), words="whiteout"
        ),
        "whiteout-dot": refused(
            folder("d") + file("d/k", b"1"), file("d/.wh..", b""), words="whiteout"
        ),
        "whiteout-empty": refused(
            folder("d") + file("d/k", b"1"), file("d/.wh.", b""), words="whiteout"
        ),
        "whiteout-through-symlink": ok(
            folder("out") + file("out/victim") + file("out/other") + symlink("d", "../out"),
            file("d/.wh.victim", b""),
            tree=["d out 0755", "f out/other 0644 'x'", "l d -> ../out"],
        ),
        "opaque": ok(
            folder("d") + file("d/a", b"1"),
            folder("d") + file("d/.wh..wh..opq", b"") + file("d/n", b"2"),
            tree=["d d 0755", "f d/n 0644 '2'"],
        ),
        "opaque-last": ok(
            folder("d") + file("d/a", b"1"),
            folder("d") + file("d/n", b"2") + file("d/.wh..wh..opq", b""),
            tree=["d d 0755", "f d/n 0644 '2'"],
        ),
        "opaque-nested-new": ok(
            folder("d") + folder("d/s") + file("d/s/o", b"1"),
            folder("d") + folder("d/s") + file("d/s/n", b"2") + file("d/.wh..wh..opq", b""),
            tree=["d d 0755", "d d/s 0755", "f d/s/n 0644 '2'"],
        ),
        "opaque-missing-dir": ok(
            file("a", b"1"),
            file("nope/.wh..wh..opq", b""),
            tree=["d nope 0755", "f a 0644 '1'"],
        ),
        "aufs-meta": ok(
            folder(".wh..wh.plnk") + file(".wh..wh.plnk/1.2") + file(".wh..wh.aufs", b""), tree=[]
        ),
        "whiteout-nonempty": ok(file("a"), file(".wh.a", b"content"), tree=[]),
        "raw-overlay-whiteout": refused(file("a"), header(b"a", b"3"), words="0:0"),
        "overlay-xattr": ok(
            folder("d") + file("d/k", b"1"),
            pax(xattr("trusted.overlay.opaque", b"y")) + folder("d"),
            tree=["d d 0755", "f d/k 0644 '1'"],
        ),
        "overlay-redirect-xattr": ok(
            folder("etc") + file("etc/k", b"1"),
            pax(xattr("trusted.overlay.redirect", b"/etc")) + folder("d"),
            tree=["d d 0755", "d etc 0755", "f etc/k 0644 '1'"],
        ),
        "user-overlay-xattr": ok(
            pax(xattr("user.overlay.opaque", b"y")) + folder("d"), tree=["d d 0755"]
        ),
        "cap-xattr": ok(
            pax(xattr("security.capability", capability)) + file("f", uid=5),
            tree=["f f 0644 'x' uid=5 xattr=security.capability"],
        ),
        "setuid": ok(file("f", mode=0o6755, uid=7), tree=["f f 6755 'x' uid=7"]),
        "sticky-dir": ok(folder("d", 0o1777), tree=["d d 1777"]),
        "device-node": ok(header(b"null", b"3", device=(1, 3)), tree=["c null 0644 1:3"]),
        "block-device": ok(header(b"sda", b"4", device=(8, 0)), tree=["b sda 0644 8:0"]),
        "fifo": ok(header(b"p", b"6"), tree=["p p 0644"]),
        "socket-type": refused(header(b"s", b"s"), words="unknown type 's'"),
        "contiguous": ok(header(b"a", b"7", size=1) + padded(b"x"), tree=["f a 0644 'x'"]),
        "global-pax": ok(pax((b"path", b"other"), kind=b"g") + file("a"), tree=["f a 0644 'x'"]),
        "pax-path-override": refused(pax((b"path", b"../../bs-out")) + file("ok"), words="leaves"),
        "pax-linkpath": refused(
            pax((b"linkpath", f"{host}/sentinel".encode())) + hardlink("h", "x"), words="missing"
        ),
        "pax-nul": refused(pax((b"path", b"a\0b")) + file("a"), words="NUL"),
        "long-name": refused(pax((b"path", b"n" * 300)) + file("n"), words="too long"),
        "deep-path": ok(deep, tree=[f"d {path} 0755" for path in deep_paths]),
        "non-utf8": ok(file(b"a\xff\xfeb"), tree=["f a\udcff\udcfeb 0644 'x'"]),
        "newline-name": ok(file('a\n"b'), tree=["f a\n\"b 0644 'x'"]),
        "case-pair": ok(file("A", b"1") + file("a", b"2"), tree=["f A 0644 '1'", "f a 0644 '2'"]),
        "wh-like-name": ok(file(".wh"), tree=["f .wh 0644 'x'"]),
        "negative-mtime": ok(pax((b"mtime", b"-5.5")) + file("a"), tree=["f a 0644 'x' mtime=0"]),
        "huge-mtime": ok(
            pax((b"mtime", b"253402300799")) + file("a"), tree=["f a 0644 'x' mtime=max"]
        ),
        "big-uid": ok(file("a", uid=4294967294), tree=["f a 0644 'x' uid=4294967294"]),
        "negative-uid-pax": Case(
            [pax((b"uid", b"-1")) + file("a") + END], error=DataLoss, words="negative"
        ),
        "truncated": Case(
            [header(b"a", size=2000) + b"x" * 1000], error=DataLoss, words="inside 'a'"
        ),
        "no-trailer": Case([file("a")], tree=["f a 0644 'x'"]),
        "garbage-after": Case([file("a") + END + b"garbage" * 999], tree=["f a 0644 'x'"]),
        "empty-archive": Case([b""], tree=[]),
        "size-lie": Case(
            [header(b"a", size=8 << 30) + b"x" * 1000], error=DataLoss, words="inside 'a'"
        ),
        "bad-checksum": Case([header(b"a", checksum=1234) + END], error=DataLoss, words="checksum"),
        "gzip-bomb": lambda: Case(
            [gzip.compress(header(b"a", size=50 << 20) + bytes(50 << 20) + END)],
            error=TooLarge,
            words="10000000",
            request={"limit_bytes": 10_000_000},
        ),
        "gzip-multi-member": Case(
            [gzip.compress(file("a")) + gzip.compress(file("b")) + gzip.compress(END)],
            tree=["f a 0644 'x'", "f b 0644 'x'"],
        ),
        "gzip-trailing-zeros": Case(
            [gzip.compress(file("a") + END) + bytes(70_000)], tree=["f a 0644 'x'"]
        ),
        "zstd-window": Case([_zstd_with_window(1 << 31)], error=TooLarge, words="window"),
        "estargz-toc": Case(
            [
                gzip.compress(file("a"))
                + gzip.compress(file("stargz.index.json", b"{}") + END)
                + gzip.compress(b"")
            ],
            tree=["f a 0644 'x'", "f stargz.index.json 0644 '{}'"],
        ),
        "digest-mismatch": Case(
            [file("a") + END],
            error=DataLoss,
            words="digest",
            request={"digest": "sha256:" + "0" * 64},
        ),
        "diffid-mismatch": Case(
            [file("a") + END],
            error=DataLoss,
            words="diff id",
            request={"diff_id": "sha256:" + "0" * 64},
        ),
        "size-mismatch": Case(
            [file("a") + END], error=DataLoss, words="size", request={"size_bytes": 600}
        ),
        "many-entries": Case(
            [folder("d") + b"".join(file(f"d/{n}", b"") for n in range(2000)) + END],
            error=TooLarge,
            words="1000 entries",
            config={"entry_limit": 1000},
        ),
        "many-xattrs": refused(
            pax(*(xattr(f"user.a{n}", b"x" * 60_000) for n in range(20))) + file("a"),
            words="extended header",
        ),
        "sparse-gnu": Case(
            [
                header(
                    b"a",
                    b"S",
                    size=1,
                    magic=b"ustar  \0",
                    sparse=[(5, 1)],
                    real_size=8,
                )
                + padded(b"x")
                + END
            ],
            tree=["f a 0644 '\0\0\0\0\0x\0\0'"],
        ),
        "long-gnu-links": ok(
            gnu_long(b"L", b"first") + gnu_long(b"L", b"n/" + b"m" * 150) + file("short"),
            tree=["d n 0755", f"f n/{'m' * 150} 0644 'x'"],
        ),
    }


def _zstd_with_window(size: int) -> bytes:
    """A frame header that asks for a window (RFC 8878 section 3.1.1.1), and one raw block."""
    exponent = size.bit_length() - 1 - 10
    return b"\x28\xb5\x2f\xfd" + bytes([0x00, exponent << 3]) + b"\x01\x00\x00"


def parents_of(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return [f"d {'/'.join(parts[:count])} 0755" for count in range(1, len(parts))]


def listing(root: Path) -> list[str]:
    """The tree in the words of the vectors, by kind and name; iterative, since trees may be deep."""
    found = []
    pending = [b""]
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    here = os.getcwd()  # noqa: PTH109
    os.fchdir(top)
    try:
        while pending:
            prefix = pending.pop()
            for name in os.listdir(prefix or b"."):  # noqa: PTH208
                path = prefix + name
                found.append(_line(path))
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    pending.append(path + b"/")
    finally:
        os.chdir(here)
        os.close(top)
    return sorted(found)


def _line(path: bytes) -> str:
    status = os.lstat(path)
    text, kind, mode = os.fsdecode(path), stat.S_IFMT(status.st_mode), status.st_mode & 0o7777
    if kind == stat.S_IFLNK:
        line = f"l {text} -> {os.fsdecode(os.readlink(path))}"  # noqa: PTH115
    else:
        letter = {
            stat.S_IFREG: "f",
            stat.S_IFDIR: "d",
            stat.S_IFCHR: "c",
            stat.S_IFBLK: "b",
            stat.S_IFIFO: "p",
        }[kind]
        line = f"{letter} {text} {mode:04o}"
        if letter == "f":
            line += f" '{Path(os.fsdecode(path)).read_text()}'"
        if letter in "cb":
            line += f" {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if kind != stat.S_IFDIR and status.st_nlink > 1:
        line += f" nlink={status.st_nlink}"
    if status.st_uid:
        line += f" uid={status.st_uid}"
    if status.st_mtime_ns <= 0:
        line += " mtime=0"
    elif status.st_mtime > 2_000_000_000:
        line += " mtime=max"
    for name in os.listxattr(path, follow_symlinks=False):
        line += f" xattr={name}"
    return line


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65536):
        yield data[start : start + 65536]


@pytest.fixture
def removed_afterwards(tmp_path: Path) -> Iterator[None]:
    """pytest cannot remove a tree as deep as one of these."""
    yield
    remove_tree(tmp_path)
    tmp_path.mkdir()


@pytest.fixture
def host() -> Iterator[Path]:
    """A folder outside; its name is short, since a tar has 100 bytes for where a link leads."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "out").mkdir()
        (Path(folder) / "sentinel").write_text("safe")
        yield Path(folder)


@pytest.mark.usefixtures("removed_afterwards")
@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["id"] not in ELSEWHERE], ids=lambda v: v["id"]
)
@pytest.mark.system
async def test_a_layer_behaves_as_required(
    vector: dict[str, Any], fake_host: FakeHost, host: Path
) -> None:
    made = cases(str(host))[vector["id"]]
    case = made() if callable(made) else made
    config = OverlaySnapshotsConfig(**case.config)
    async with OverlaySnapshots.open(config, fake_host) as snapshots:
        error: LinkspanError | None = None
        parent = ""
        for number, layer in enumerate(case.layers):
            request = ApplyRequest(ref="x", **case.request)
            try:
                await snapshots.apply(request, pieces(layer))
                name = f"layer {number}"
                parent = (await snapshots.commit_applied("x", name=name, parent=parent)).name
            except LinkspanError as caught:
                error = caught
                break
        if error is not None:
            assert len(await snapshots.layers()) == len(case.layers) - 1
        assert listing(host) == ["d out 0755", "f sentinel 0644 'safe'"]
        if case.error is not None:
            assert type(error) is case.error, vector["required"]
            assert case.words in str(error)
            assert not case.code or error.code == case.code
            return
        assert error is None, vector["required"]
        async with snapshots.view(parent) as root:
            assert listing(root) == sorted(case.tree or []), vector["required"]


def test_every_vector_has_a_case() -> None:
    made = {*cases("/host"), *ELSEWHERE}
    assert made == {vector["id"] for vector in VECTORS}


@pytest.mark.system
async def test_the_whole_stream_counts_for_the_diff_id(fake_host: FakeHost) -> None:
    tar = file("a") + END + b"garbage" * 9999
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
        applied = await snapshots.apply(ApplyRequest(ref="x"), pieces(gzip.compress(tar)))
        assert applied.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()


@pytest.mark.system
async def test_zstd_layers_of_several_frames_are_unpacked(fake_host: FakeHost) -> None:
    tar = file("a", b"x" * 3_000_000) + file("b") + END
    packed = zstandard.compress(tar[:2_000_000]) + zstandard.compress(tar[2_000_000:])
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
        applied = await snapshots.apply(ApplyRequest(ref="x"), pieces(packed))
        assert applied.diff_id == "sha256:" + hashlib.sha256(tar).hexdigest()
        with pytest.raises(DataLoss, match="no end"):
            await snapshots.apply(ApplyRequest(ref="y"), pieces(packed[:-30]))


@pytest.mark.system
async def test_a_zstd_bomb_is_stopped(fake_host: FakeHost) -> None:
    bomb = zstandard.compress(bytes(300 << 20))
    assert len(bomb) < 100_000
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
        with pytest.raises(TooLarge):
            await snapshots.apply(ApplyRequest(ref="x", limit_bytes=1 << 20), pieces(bomb))


@pytest.mark.parametrize(("magic", "name"), [(b"BZh91AY", "bzip2"), (b"\xfd7zXZ\0\0", "xz")])
@pytest.mark.system
async def test_other_compressions_are_named(fake_host: FakeHost, magic: bytes, name: str) -> None:
    async with OverlaySnapshots.open(OverlaySnapshotsConfig(), fake_host) as snapshots:
        with pytest.raises(InvalidArgument, match=name):
            await snapshots.apply(ApplyRequest(ref="x"), pieces(magic))
