"""Calls that need no rights; mounts and namespaces are met in the drivers' system tests."""

import errno
import os
import stat
from pathlib import Path

import pytest

from linkspan.sdk import syscalls


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "etc" / "name").write_text("inside")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "name").write_text("outside")
    descriptor = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def read(descriptor: int) -> str:
    with os.fdopen(descriptor) as file:
        return file.read()


@pytest.mark.parametrize("path", ["/etc/name", "../etc/name", b"../../etc/name", "link"])
def test_no_path_leads_out_of_a_root(folder, tmp_path, path):
    (tmp_path / "root" / "link").symlink_to("/etc/name")
    assert read(syscalls.open_in_root(folder, path, os.O_RDONLY)) == "inside"


def test_an_empty_path_is_the_root(folder):
    descriptor = syscalls.open_in_root(folder, "", os.O_PATH)
    assert os.path.samestat(os.fstat(descriptor), os.fstat(folder))
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("path", ["../etc/name", "/etc/name", "link"])
def test_beneath_a_folder_what_leads_out_is_refused(folder, tmp_path, path):
    (tmp_path / "root" / "link").symlink_to("../etc/name")
    with pytest.raises(OSError) as caught:
        syscalls.open_beneath(folder, path, os.O_RDONLY)
    assert (caught.value.errno, caught.value.filename) == (errno.EXDEV, path)


def test_beneath_a_folder_links_within_are_followed(folder, tmp_path):
    (tmp_path / "root" / "link").symlink_to("etc/../etc/name")
    descriptor = syscalls.open_beneath(folder, "link", os.O_RDONLY)
    assert stat.S_ISREG(os.fstat(descriptor).st_mode)
    assert read(descriptor) == "inside"


def test_a_name_that_is_no_text_is_opened(folder, tmp_path):
    name = os.fsdecode(b"\xff")
    (tmp_path / "root" / name).write_text("odd")
    assert read(syscalls.open_in_root(folder, b"\xff", os.O_RDONLY)) == "odd"
    assert read(syscalls.open_in_root(folder, name, os.O_RDONLY)) == "odd"


def test_an_error_names_the_path(folder, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        syscalls.open_in_root(folder, "none", os.O_RDONLY)
    assert caught.value.filename == "none"
    with pytest.raises(OSError) as refused:
        syscalls.unmount(tmp_path / "none")
    assert refused.value.filename == str(tmp_path / "none")


def test_the_kind_of_a_file_system_is_a_number(tmp_path):
    assert syscalls.file_system_type("/proc/self/ns/mnt") == syscalls.NSFS_MAGIC
    assert syscalls.file_system_type(Path("/proc")) not in (0, syscalls.TMPFS_MAGIC)
    assert syscalls.file_system_type(tmp_path / "none") == 0
