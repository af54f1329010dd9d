"""Bytes in, bytes out: parts that need neither root nor a kernel's help."""

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, strategies as st

from linkspan.plugins.overlay_snapshots.compression import decompressed, is_compressed
from linkspan.plugins.overlay_snapshots.faults import from_wire, hostile, to_wire
from linkspan.plugins.overlay_snapshots.sparse import number
from linkspan.plugins.overlay_snapshots.tar_writer import block, pax_record
from linkspan.plugins.overlay_snapshots.trees import own_size, remove_tree
from linkspan.sdk.errors import DataLoss, InvalidArgument


def blocks(data: bytes, size: int) -> Iterator[memoryview]:
    """As the reader of the pipe does it: one buffer, used again and again."""
    buffer = bytearray(size)
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


def unpacked(data: bytes, size: int = 1000) -> bytes:
    assert is_compressed(data[:6])
    return b"".join(decompressed(data[:6], blocks(data[6:], size)))


@given(
    parts=st.lists(st.binary(max_size=3000), min_size=1, max_size=4),
    size=st.integers(1, 2000),
    zeros=st.integers(0, 1500),
)
def test_gzip_members_and_padding_in_any_pieces(parts: list[bytes], size: int, zeros: int) -> None:
    packed = b"".join(gzip.compress(part) for part in parts) + bytes(zeros)
    assert unpacked(packed, size) == b"".join(parts)


@given(parts=st.lists(st.binary(max_size=3000), min_size=1, max_size=4), size=st.integers(1, 2000))
def test_zstd_frames_in_any_pieces(parts: list[bytes], size: int) -> None:
    packed = b"".join(zstandard.compress(part) for part in parts)
    assert unpacked(packed, size) == b"".join(parts)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_every_truncation_is_noticed(pack: object) -> None:
    assert callable(pack)
    packed = pack(b"some text" * 100)
    for end in range(10, len(packed)):
        with pytest.raises(DataLoss):
            unpacked(packed[:end])


def test_garbage_behind_gzip_is_data_loss() -> None:
    with pytest.raises(DataLoss):
        unpacked(gzip.compress(b"text") + b"garbage")
    with pytest.raises(DataLoss):
        unpacked(gzip.compress(b"text") + bytes(50) + b"garbage")


def test_large_output_of_small_input_comes_in_bounded_pieces() -> None:
    packed = gzip.compress(bytes(100 << 20))
    pieces = decompressed(packed[:6], blocks(packed[6:], 256 << 10))
    sizes = [len(piece) for piece in pieces]
    assert sum(sizes) == 100 << 20
    assert max(sizes) <= 4 << 20


@given(st.integers(0, 2**63 - 1))
def test_base_256_numbers_are_read(value: int) -> None:
    assert number(b"\x80" + value.to_bytes(11, "big")) == value
    assert number((-value - 1).to_bytes(12, "big", signed=True)) == -value - 1


@pytest.mark.parametrize(
    ("field", "value"),
    [(b"0000644\0", 0o644), (b"   644 \0", 0o644), (b"\0" * 8, 0), (b"17\0junk\0", 0o17)],
)
def test_octal_numbers_are_read_in_all_their_forms(field: bytes, value: int) -> None:
    assert number(field) == value


def test_what_is_no_number_is_data_loss() -> None:
    with pytest.raises(DataLoss):
        number(b"rubbish\0")


@given(st.binary(min_size=1, max_size=2000))
def test_records_say_their_own_length(value: bytes) -> None:
    record = pax_record(b"SCHILY.xattr.user.x", value)
    length, _, rest = record.partition(b" ")
    assert int(length) == len(record)
    assert rest == b"SCHILY.xattr.user.x=" + value + b"\n"


def test_headers_are_read_by_another_program() -> None:
    header = block(b"name", 0o4755, 7, 8, 0, 1_600_000_000, b"2", b"target", prefix=b"some/dir")
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024))) as tar:
        (member,) = tar.getmembers()
    assert (member.name, member.linkname) == ("some/dir/name", "target")
    assert (member.mode, member.uid, member.gid) == (0o4755, 7, 8)
    assert member.mtime == 1_600_000_000


def test_errors_survive_the_way_to_the_daemon() -> None:
    error = from_wire(to_wire(hostile(b"a\xff", "it is too strange")))
    assert isinstance(error, InvalidArgument)
    assert error.code == "hostile_layer"
    assert "too strange" in str(error)
    assert error.help


def test_trees_of_any_depth_are_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(outside)
    here = os.open(top, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    for number_ in range(300):
        (top / f"d{number_}").mkdir()
    remove_tree(top)
    assert not top.exists()
    assert (outside / "kept").exists()
    remove_tree(top)


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c").write_bytes(bytes(10))
    (tmp_path / "d" / "l").symlink_to("/etc/passwd")
    assert own_size(os.fsencode(tmp_path)) == 1010
