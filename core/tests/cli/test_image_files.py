"""Images and file systems as archives."""

import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def sends(fake: Any, path: str, data: bytes) -> None:
    def answer(_: Any, connection: Any) -> None:
        connection.head(200, {"Transfer-Encoding": "chunked"})
        for at in range(0, len(data), 1000):
            connection.chunk(data[at : at + 1000])
        connection.sock.sendall(b"0\r\n\r\n")

    fake.on("GET", path, answer)


def test_save_writes_a_file_that_appears_whole(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    sends(fake, "/images/get", b"tar" * 1000)
    with fake.running():
        result = linkspan("save", "-o", str(tmp_path / "x.tar"), "a:1", "b:2")
    assert result == (0, "", "")
    assert (tmp_path / "x.tar").read_bytes() == b"tar" * 1000
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["x.tar"]


def test_save_to_stdout_is_the_archive_and_nothing_else(linkspan: Any, fake: Any) -> None:
    sends(fake, "/images/get", b"tar" * 1000)
    with fake.running():
        assert linkspan("save", "a:1") == (0, "tar" * 1000, "")


def test_an_archive_that_ends_too_early_leaves_the_old_file(
    linkspan: Any, fake: Any, tmp_path: Path
) -> None:
    (tmp_path / "x.tar").write_bytes(b"old")

    def answer(_: Any, connection: Any) -> None:
        connection.head(200, {"Transfer-Encoding": "chunked"})
        connection.chunk(b"half")

    fake.on("GET", "/containers/web/export", answer)
    with fake.running():
        result = linkspan("export", "-o", str(tmp_path / "x.tar"), "web")
    assert result.status == 69
    assert (tmp_path / "x.tar").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["x.tar"]


def test_a_missing_folder_is_found_before_the_daemon_works(
    linkspan: Any, fake: Any, tmp_path: Path
) -> None:
    with fake.running():
        result = linkspan("save", "-o", str(tmp_path / "no" / "x.tar"), "a:1")
    assert result.status == 2
    assert fake.requests == []


def test_a_pipe_or_a_device_is_written_to_and_stays_what_it_is(
    linkspan: Any, fake: Any, tmp_path: Path
) -> None:
    sends(fake, "/images/get", b"tar" * 1000)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with fake.running():
        assert linkspan("save", "-o", str(pipe), "a:1") == (0, "", "")
        assert linkspan("save", "-o", "/dev/null", "a:1") == (0, "", "")
        full = linkspan("save", "-o", "/dev/full", "a:1")
    assert os.read(reader, 9999) == b"tar" * 1000
    os.close(reader)
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()
    assert Path("/dev/full").is_char_device()
    assert (full.status, full.err) == (
        1,
        "error: cannot write '/dev/full': No space left on device\n",
    )


def test_a_file_is_written_behind_its_link(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    sends(fake, "/images/get", b"tar")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/x.tar")
    with fake.running():
        assert linkspan("save", "-o", str(tmp_path / "link"), "a:1").status == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "x.tar").read_bytes() == b"tar"


def test_a_folder_or_a_socket_is_no_place_for_an_archive(
    linkspan: Any, fake: Any, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as made, fake.running():
        made.bind(str(tmp_path / "s"))
        folder = linkspan("save", "-o", str(tmp_path), "a:1")
        result = linkspan("export", "-o", str(tmp_path / "s"), "a")
    assert (folder.status, result.status) == (2, 2)
    assert "it is a folder" in folder.err
    assert "it is a socket" in result.err
    assert not fake.requests


def test_load_sends_the_file_and_says_what_came(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"tar" * 100_000)

    def answer(_: Any, connection: Any) -> None:
        connection.stream({"stream": "Loaded image: a:1\n"}, {"stream": "Loaded image: b:2\n"})

    fake.on("POST", "/images/load", answer)
    with fake.running():
        result = linkspan("load", "-i", str(tmp_path / "x.tar"))
        quiet = linkspan("load", "-q", "-i", str(tmp_path / "x.tar"))
    assert (result.status, result.out) == (0, "Loaded image: a:1\nLoaded image: b:2\n")
    assert quiet.out == "a:1\nb:2\n"
    request = fake.asked("POST", "/images/load")
    assert request.body == b"tar" * 100_000
    assert request.headers["content-type"] == "application/x-tar"


def test_a_refused_archive_is_an_error(
    linkspan: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"x")
    fake.on(
        "POST",
        "/images/load",
        lambda _, c: c.stream({"errorDetail": {"message": "no manifest"}, "error": "no manifest"}),
    )
    with fake.running():
        result = linkspan("load")
    assert (result.status, result.out) == (1, "")
    assert "error[LS0102]: no manifest" in result.err


def test_import_sends_stdin_with_its_changes(
    linkspan: Any, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(monkeypatch, b"rootfs")
    fake.on("POST", "/images/create", lambda _, c: c.stream({"status": "sha256:abc"}))
    with fake.running():
        result = linkspan("import", "-c", "CMD sh", "-m", "first", "-", "base:1")
    assert (result.status, result.out) == (0, "sha256:abc\n")
    request = fake.asked("POST", "/images/create")
    assert request.body == b"rootfs"
    assert request.query == {
        "fromSrc": "-",
        "repo": "base",
        "tag": "1",
        "changes": "CMD sh",
        "message": "first",
    }


def test_import_of_an_address_lets_the_daemon_fetch_it(linkspan: Any, fake: Any) -> None:
    fake.on("POST", "/images/create", lambda _, c: c.stream({"status": "sha256:abc"}))
    with fake.running():
        assert linkspan("import", "http://files.test/x.tar").out == "sha256:abc\n"
    assert fake.asked("POST", "/images/create").query == {"fromSrc": "http://files.test/x.tar"}


def test_commit_makes_an_image(linkspan: Any, fake: Any) -> None:
    fake.on("POST", "/commit", {"Id": "sha256:abc"}, 201)
    with fake.running():
        result = linkspan("commit", "-a", "ana", "--no-pause", "-c", "ENV A=1", "web", "shop:2")
    assert result == (0, "sha256:abc\n", "")
    assert fake.asked("POST", "/commit").query == {
        "container": "web",
        "repo": "shop",
        "tag": "2",
        "author": "ana",
        "changes": "ENV A=1",
        "pause": "0",
    }


@pytest.mark.parametrize("words", [["load", "-i", "/absent"], ["import", "/absent"]])
def test_a_file_that_is_missing_is_wrong_usage(linkspan: Any, fake: Any, words: list[str]) -> None:
    with fake.running():
        result = linkspan(*words)
    assert result.status == 2
    assert "cannot read '/absent'" in result.err
    assert fake.requests == []
