"""The tar reader, on archives of the standard library and on hostile ones."""

import bz2
import gzip
import io
import lzma
import random
import tarfile

import pytest
import zstandard

from linkspan.plugins.dockerfile_builder.archive import entries, open_stream
from linkspan.plugins.dockerfile_builder.tree import TarTree
from linkspan.sdk.errors import DataLoss, InvalidArgument, TooLarge

LONG = "d/" * 70 + "x" * 90


def source(data, size=700):
    stream = io.BytesIO(data)
    return lambda: stream.read(size)


def stream_of(data, size=700, limit=1 << 30):
    return open_stream(source(data, size), limit_bytes=limit)


def make(members, **options):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", **options) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def member(name, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


MEMBERS = [
    (member("dir", tarfile.DIRTYPE, mode=0o711, mtime=5), b""),
    (member("dir/a", mode=0o4755, uid=7, gid=8, mtime=1_000_000_000), b"A" * 1234),
    (member("dir/empty"), b""),
    (member(LONG, mtime=3), b"long"),
    (member("link", tarfile.SYMTYPE, linkname="y" * 150), b""),
    (member("hard", tarfile.LNKTYPE, linkname="dir/a"), b""),
    (member("pipe", tarfile.FIFOTYPE), b""),
    (member("null", tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
    (member("é\udce9"), b"name"),
    (member("huge-id", uid=3_000_000_000), b""),
]


def read(data, **options):
    return [
        (entry, b"".join(bytes(piece) for piece in pieces))
        for entry, pieces in entries(stream_of(data, **options))
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1, 511, 513, 1 << 20])
def test_an_archive_is_read_whatever_the_pieces(form, size):
    data = make(MEMBERS, format=form, errors="surrogateescape", encoding="utf-8")
    found = read(data, size=size)
    assert [entry.name.rstrip("/") for entry, _ in found] == [info.name for info, _ in MEMBERS]
    assert [content for _, content in found] == [content for _, content in MEMBERS]
    first, second = found[0][0], found[1][0]
    assert (first.kind, first.mode, first.mtime_ns) == ("directory", 0o711, 5_000_000_000)
    assert (second.mode, second.uid, second.gid) == (0o4755, 7, 8)
    assert found[4][0].target == "y" * 150
    assert found[5][0].kind == "hardlink"
    assert found[7][0].device == (1, 3)
    assert found[9][0].uid == 3_000_000_000


def test_data_that_is_not_read_is_skipped():
    data = make(MEMBERS, format=tarfile.PAX_FORMAT, errors="surrogateescape")
    assert len([entry for entry, _ in entries(stream_of(data))]) == len(MEMBERS)


def test_fractions_and_attributes_of_pax_are_read():
    info = member("a")
    info.pax_headers = {"mtime": "12.25", "SCHILY.xattr.user.k": "v"}
    ((entry, _),) = read(make([(info, b"")], format=tarfile.PAX_FORMAT))
    assert entry.mtime_ns == 12_250_000_000
    assert entry.xattrs == {"user.k": b"v"}


COMPRESSORS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("size", [1, 4096])
def test_a_compressed_archive_is_told_by_its_first_bytes(name, size):
    noise = random.Random(1).randbytes(300_000)
    data = COMPRESSORS[name](make([(member("a"), noise)]))
    assert read(data, size=size if size > 1 else 997)[0][1] == noise


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_several_compressed_members_are_one_archive(name):
    data = make([(member("a"), b"A" * 5000)])
    packed = COMPRESSORS[name](data[:3000]) + COMPRESSORS[name](data[3000:])
    assert read(packed)[0][1] == b"A" * 5000


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressed_data_that_is_cut_off_is_told(name):
    packed = COMPRESSORS[name](make([(member("a"), random.Random(2).randbytes(50_000))]))
    with pytest.raises(DataLoss):
        read(packed[: len(packed) // 2])


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_bomb_is_stopped_by_the_limit(name):
    packed = COMPRESSORS[name](make([(member("a"), bytes(8 << 20))]))
    assert len(packed) < 100_000
    with pytest.raises(TooLarge):
        read(packed, limit=1 << 20)


def test_an_archive_that_ends_inside_a_file_is_told():
    data = make([(member("a"), b"A" * 5000)])
    with pytest.raises(DataLoss, match="ends inside 'a'"):
        read(data[:2000])
    with pytest.raises(DataLoss, match="ends inside a header"):
        read(data[:300])


def test_a_missing_trailer_is_accepted():
    data = make([(member("a"), b"A" * 512)])
    assert len(read(data[:1024])) == 1


def test_broken_headers_are_told():
    data = bytearray(make([(member("a"), b"")]))
    data[0] ^= 1
    with pytest.raises(InvalidArgument, match="broken header"):
        read(bytes(data))


def test_an_unknown_type_and_sparse_files_are_refused():
    for kind in (b"V", b"S"):
        with pytest.raises(InvalidArgument, match="'a'"):
            read(make([(member("a", kind), b"")]))


def test_a_broken_extended_header_is_told():
    info = member("././@PaxHeader", b"x")
    for content in (b"99 path=x\n", b"0 a=b\n", b"x\n", b"12 uid=nope\n"):
        data = make([(info, content)])[: 512 + 512] + make([(member("a"), b"")])
        with pytest.raises(InvalidArgument):
            read(data)


@pytest.mark.parametrize(
    "records",
    [{"uid": "-1"}, {"gid": "4294967295"}, {"path": "a\0b"}, {"linkpath": "a\0b"}, {"size": "-5"}],
)
def test_values_that_no_file_can_have_are_told(records):
    info = member("a")
    info.pax_headers = records
    with pytest.raises(InvalidArgument):
        read(make([(info, b"")], format=tarfile.PAX_FORMAT))


def context(tmp_path, members):
    tree = TarTree(tmp_path)
    try:
        tree.receive(stream_of(make(members)))
    finally:
        tree.close()
    return tree


@pytest.mark.parametrize(
    "members",
    [
        [(member("../x"), b"")],
        [(member("a/../../x"), b"")],
        [(member("a", tarfile.SYMTYPE, linkname="/etc"), b""), (member("a/passwd"), b"")],
        [(member("a"), b""), (member("a/b"), b"")],
        [(member("a", tarfile.LNKTYPE, linkname="/etc/passwd"), b"")],
        [(member("a", tarfile.LNKTYPE, linkname="a"), b"")],
        [(member("d", tarfile.DIRTYPE), b""), (member("a", tarfile.LNKTYPE, linkname="d"), b"")],
        [(member("d/" * 2500 + "x"), b"")],
    ],
)
def test_a_hostile_context_is_refused(tmp_path, members):
    with pytest.raises(InvalidArgument) as caught:
        context(tmp_path, members)
    assert caught.value.code == "hostile_context"


def test_the_last_of_two_entries_wins(tmp_path):
    tree = context(tmp_path, [(member("a"), b"1"), (member("/./a"), b"22")])
    assert tree.lookup("a").size == 2


def test_links_are_followed_inside_the_context_only(tmp_path):
    tree = context(
        tmp_path,
        [
            (member("etc/passwd"), b"mine"),
            (member("up", tarfile.SYMTYPE, linkname="../../../etc/passwd"), b""),
            (member("abs", tarfile.SYMTYPE, linkname="/etc"), b""),
            (member("loop", tarfile.SYMTYPE, linkname="loop"), b""),
        ],
    )
    passwd = tree.lookup("etc/passwd")
    assert tree.lookup("up") is passwd
    assert tree.lookup("abs/passwd") is passwd
    assert tree.lookup("abs/../../etc/./passwd") is passwd
    assert tree.lookup("loop") is None
    assert tree.lookup("etc/passwd/x") is None
