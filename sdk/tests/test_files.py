"""Small files."""

import os
from pathlib import Path

import pytest

from linkspan.sdk.files import write_file


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
