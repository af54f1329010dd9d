"""Folders as build contexts."""

import os
import socket
import time

import pytest

from linkspan.plugins.dockerfile_builder.tree import DigestMemo, FolderTree


@pytest.fixture
def settled(monkeypatch):
    """Files made now count as made long ago."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10_000_000_000)


def digest(folder, memo):
    tree = FolderTree(folder, memo=memo)
    try:
        return tree.digest(tree.lookup("a"))
    finally:
        tree.close()


def test_a_file_that_did_not_change_is_not_read_again(tmp_path, settled, monkeypatch):
    (tmp_path / "a").write_text("one")
    memo = DigestMemo()
    first = digest(tmp_path, memo)
    monkeypatch.setattr(FolderTree, "_open_file", None)
    assert digest(tmp_path, memo) == first


def test_a_changed_file_is_read_again_though_size_and_time_are_the_same(tmp_path, settled):
    file, memo = tmp_path / "a", DigestMemo()
    file.write_text("one")
    first, info = digest(tmp_path, memo), file.stat()
    time.sleep(0.02)
    file.write_text("two")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert digest(tmp_path, memo) != first


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("one")
    memo = DigestMemo()
    digest(tmp_path, memo)
    monkeypatch.setattr(FolderTree, "_open_file", None)
    with pytest.raises(TypeError):
        digest(tmp_path, memo)


def test_a_path_is_looked_up_inside_the_folder_only(tmp_path):
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    (root / "secret").write_text("mine")
    (root / "up").symlink_to("../../secret")
    (root / "abs").symlink_to("/secret")
    tree = FolderTree(root)
    try:
        for path in ("up", "abs", "../secret", "d/../../secret"):
            assert tree.lookup(path).size == 4
    finally:
        tree.close()


def test_sockets_are_left_out(tmp_path, monkeypatch):
    # A relative name: paths of sockets are short.
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        tree = FolderTree(tmp_path)
        assert dict(tree.children(tree.root)) == {}
        tree.close()
