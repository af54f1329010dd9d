"""``/.dockerenv`` and ``/etc/mtab`` of a root."""

from pathlib import Path

import pytest

from linkspan.core.engine.root_marks import mark_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    return tmp_path / "root"


def test_a_root_gets_both_and_twice_is_once(root: Path) -> None:
    mark_root(root)
    mark_root(root)
    assert (root / ".dockerenv").read_bytes() == b""
    assert (root / "etc/mtab").readlink() == Path("/proc/mounts")


def test_what_the_image_has_there_stays(root: Path) -> None:
    (root / ".dockerenv").write_text("mine")
    (root / "etc/mtab").write_text("mine")
    mark_root(root)
    assert (root / ".dockerenv").read_text() == (root / "etc/mtab").read_text() == "mine"


def test_links_of_the_image_lead_nowhere(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "etc").rmdir()
    (root / "etc").symlink_to(outside)
    (root / ".dockerenv").symlink_to(outside / "made")
    mark_root(root)
    assert list(outside.iterdir()) == []


def test_a_root_without_etc_or_none_at_all_is_no_fault(tmp_path: Path) -> None:
    mark_root(tmp_path)
    mark_root(tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == [".dockerenv"]
