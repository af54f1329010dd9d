"""Small files."""

import errno
import itertools
import os
from pathlib import Path

import pytest

from linkspan.sdk.files import DRAFT_SUFFIX, is_full, read_kernel_file, replace_file, write_file


def test_a_file_is_made_and_then_replaced(tmp_path: Path) -> None:
    file = tmp_path / "f"
    write_file(file, b"a longer text", 0o640)
    assert (file.read_bytes(), file.stat().st_mode & 0o777 & ~0o640) == (b"a longer text", 0)
    write_file(str(file), b"short")
    assert file.read_bytes() == b"short"


def test_what_the_kernel_takes_in_parts_arrives_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    write_file(tmp_path / "f", b"0123456789")
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_an_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing/f"):
        write_file(tmp_path / "missing" / "f", b"")
    with pytest.raises(OSError, match="/dev/full"):
        write_file("/dev/full", b"a")


def drafts(folder: Path) -> list[Path]:
    return sorted(folder.glob(f".*{DRAFT_SUFFIX}"))


@pytest.mark.parametrize("durable", [False, True])
def test_a_replaced_file_has_exactly_the_mode_asked_for(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "f"
    before = os.umask(0o077)
    try:
        replace_file(file, b"one", 0o644, durable=durable)
    finally:
        os.umask(before)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"one", 0o644)
    replace_file(file, b"two", durable=durable)
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"two", 0o600)
    assert drafts(tmp_path) == []


def test_whoever_has_the_old_file_open_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "f"
    replace_file(file, b"old")
    with file.open("rb") as reader:
        replace_file(file, b"new")
        assert reader.read() == b"old"
    assert file.read_bytes() == b"new"


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", b"new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"real"


def test_a_failed_replacement_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    replace_file(file, b"old")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match=str(file)) as caught:
            replace_file(file, b"new")
    assert is_full(caught.value)
    assert file.read_bytes() == b"old"
    assert drafts(tmp_path) == []
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        replace_file(tmp_path, b"new")
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*{DRAFT_SUFFIX}"))


def test_what_a_crash_left_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkspan.sdk.files._numbers", itertools.count())
    left = tmp_path / f".f.{os.getpid()}-0{DRAFT_SUFFIX}"
    left.write_bytes(b"half")
    replace_file(tmp_path / "f", b"whole")
    assert (tmp_path / "f").read_bytes() == b"whole"
    assert left.read_bytes() == b"half"


def test_a_file_of_the_kernel_is_read_to_its_end_whatever_its_size_says(tmp_path: Path) -> None:
    assert b"Pid:" in read_kernel_file("/proc/self/status")
    large = tmp_path / "large"
    large.write_bytes(b"0123456789" * 50_000)
    assert read_kernel_file(large) == large.read_bytes()
    with pytest.raises(FileNotFoundError):
        read_kernel_file(tmp_path / "none")
