"""Files between a container and this machine: Docker's rules, and what a hostile container could send."""

import base64
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from linkspan.core.cli.copy import Place, split

DIR, LINK = 1 << 31, 1 << 27
Entries = list[tuple[str, Any]]


def tar(entries: Entries) -> bytes:
    """An archive: name and content; None is a folder, a TarInfo itself."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in entries:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif isinstance(content, tarfile.TarInfo):
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def stat_header(mode: int, link: str = "") -> dict[str, str]:
    text = json.dumps({"name": "x", "size": 1, "mode": mode, "linkTarget": link})
    return {"X-Docker-Container-Path-Stat": base64.b64encode(text.encode()).decode()}


def sends(fake: Any, entries: Entries, mode: int = 0o644) -> None:
    """GET of an archive answers with these entries."""
    data = tar(entries)

    def answer(_: Any, connection: Any) -> None:
        connection.head(200, {"Content-Length": str(len(data)), **stat_header(mode)}, data)

    fake.on("GET", "/containers/web/archive", answer)


def holds(fake: Any, paths: dict[str, tuple[int, str]]) -> None:
    """HEAD knows these paths of the container; PUT takes anything."""

    def look(request: Any, connection: Any) -> None:
        found = paths.get(request.query["path"])
        if found is None:
            connection.head(404, {"Content-Length": "0"})
        else:
            connection.head(200, {"Content-Length": "0", **stat_header(*found)})

    fake.on("HEAD", "/containers/web/archive", look)
    fake.on("PUT", "/containers/web/archive")
    fake.on("GET", "/containers/web/json", {"Id": "c"})


def sent(fake: Any) -> tuple[str, dict[str, bytes | None]]:
    """The folder and the entries of the archive that arrived."""
    request = fake.asked("PUT", "/containers/web/archive")
    found: dict[str, bytes | None] = {}
    with tarfile.open(fileobj=io.BytesIO(request.body)) as archive:
        for info in archive:
            stream = archive.extractfile(info) if info.isreg() else None
            found[info.name] = stream.read() if stream else None
    return request.query["path"], found


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/etc", Place("web", "/etc")),
        ("web:etc", Place("web", "etc")),
        ("./a:b", Place("", "./a:b")),
        ("/a:b", Place("", "/a:b")),
        ("-", Place("", "-")),
        ("file", Place("", "file")),
    ],
)
def test_which_side_is_the_container(text: str, place: Place) -> None:
    assert split(text) == place


def test_one_side_is_a_container(linkspan: Any) -> None:
    assert linkspan("cp", "a", "b").status == 2
    assert linkspan("cp", "web:/a", "db:/b").status == 2
    assert linkspan("cp", "web:", "b").status == 2


def test_a_file_comes_under_its_own_name_or_another(
    linkspan: Any, fake: Any, tmp_path: Path
) -> None:
    sends(fake, [("conf", b"text")])
    with fake.running():
        assert linkspan("cp", "web:/etc/conf", str(tmp_path)) == (0, "", "")
        assert linkspan("cp", "web:/etc/conf", str(tmp_path / "other")).status == 0
        absent = linkspan("cp", "web:/etc/conf", str(tmp_path / "absent") + "/")
        nowhere = linkspan("cp", "web:/etc/conf", str(tmp_path / "no" / "where"))
    assert (tmp_path / "conf").read_bytes() == (tmp_path / "other").read_bytes() == b"text"
    assert absent.status == nowhere.status == 1
    assert "there is no folder" in absent.err


def test_a_folder_comes_whole_or_its_contents(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    sends(fake, [("log", None), ("log/a", b"1"), ("log/sub", None), ("log/sub/b", b"2")], DIR)
    (tmp_path / "there").mkdir()
    with fake.running():
        linkspan("cp", "web:/var/log", str(tmp_path / "there"))
        linkspan("cp", "web:/var/log", str(tmp_path / "new"))
    assert (tmp_path / "there/log/sub/b").read_bytes() == b"2"
    assert (tmp_path / "new/a").read_bytes() == b"1"
    sends(fake, [("./", None), ("./a", b"1")], DIR)
    with fake.running():
        linkspan("cp", "web:/var/log/.", str(tmp_path / "there"))
    assert (tmp_path / "there/a").read_bytes() == b"1"


def test_a_folder_does_not_replace_a_file(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    sends(fake, [("log", None)], DIR)
    (tmp_path / "file").write_bytes(b"mine")
    with fake.running():
        result = linkspan("cp", "web:/var/log", str(tmp_path / "file"))
    assert result.status == 1
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_link_here_is_written_behind_and_a_pipe_is_not_replaced(
    linkspan: Any, fake: Any, tmp_path: Path
) -> None:
    sends(fake, [("conf", b"text")])
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    with fake.running():
        assert linkspan("cp", "web:/etc/conf", str(tmp_path / "link")).status == 0
        result = linkspan("cp", "web:/etc/conf", str(tmp_path / "pipe"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"text"
    assert (tmp_path / "pipe").is_fifo()
    assert result.status == 1
    assert "is neither a folder nor a file, and is not replaced" in result.err


def info(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize(
    "entries",
    [
        [("d", None), ("d/../../evil", b"x")],
        [("d", None), ("/evil", b"x")],
        [("d", None), ("", info("d/l", tarfile.SYMTYPE, "..")), ("d/l/evil", b"x")],
        [("d", None), ("", info("d/l", tarfile.SYMTYPE, "/tmp")), ("d/l/evil", b"x")],
        [("d", None), ("", info("d/l", tarfile.LNKTYPE, "../evil"))],
        [("d", None), ("", info("d/l", tarfile.LNKTYPE, "/etc/passwd"))],
    ],
    ids=["dots", "absolute", "link-up", "link-absolute", "hard-link-up", "hard-link-absolute"],
)
def test_nothing_is_written_outside_of_the_target(
    linkspan: Any, fake: Any, tmp_path: Path, entries: Entries
) -> None:
    sends(fake, entries, DIR)
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    with fake.running():
        result = linkspan("cp", "web:/d", str(place))
    assert result.status == 1
    assert not list(tmp_path.rglob("evil"))
    assert not Path("/tmp/evil").exists()


def test_links_are_copied_and_devices_left_out(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    sends(
        fake,
        [
            ("d", None),
            ("d/file", b"x"),
            ("", info("d/soft", tarfile.SYMTYPE, "/etc/hosts")),
            ("", info("d/hard", tarfile.LNKTYPE, "d/file")),
            ("", info("d/null", tarfile.CHRTYPE)),
        ],
        DIR,
    )
    with fake.running():
        assert linkspan("cp", "web:/d", str(tmp_path)).status == 0
    assert (tmp_path / "d/soft").readlink() == Path("/etc/hosts")
    assert (tmp_path / "d/hard").samefile(tmp_path / "d/file")
    assert not (tmp_path / "d/null").exists()


def test_a_broken_archive_is_an_error_in_words(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    data = b"x" * 1024

    def answer(_: Any, connection: Any) -> None:
        connection.head(200, {"Content-Length": str(len(data)), **stat_header(0o644)}, data)

    fake.on("GET", "/containers/web/archive", answer)
    with fake.running():
        result = linkspan("cp", "web:/d", str(tmp_path))
    assert result.status == 1
    assert "broken archive" in result.err


def test_a_file_goes_into_a_folder_or_becomes_one(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    holds(fake, {"/etc": (DIR, ""), "/link": (LINK, "/etc"), "/file": (0o644, "")})
    (tmp_path / "conf").write_bytes(b"text")
    results = {}
    for target in ("/etc", "/new", "/link", "/file"):
        (fake.folder / "requests").unlink(missing_ok=True)
        with fake.running():
            assert linkspan("cp", str(tmp_path / "conf"), f"web:{target}") == (0, "", "")
        results[target] = sent(fake)
    assert results == {
        "/etc": ("/etc", {"conf": b"text"}),
        "/new": ("/", {"new": b"text"}),
        "/link": ("/etc", {"conf": b"text"}),
        "/file": ("/", {"file": b"text"}),
    }


def test_a_folder_goes_whole_or_its_contents(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    holds(fake, {"/srv": (DIR, "")})
    (tmp_path / "site" / "sub").mkdir(parents=True)
    (tmp_path / "site/sub/a").write_bytes(b"1" * 600)
    results = []
    for source, target in (("site", "/srv"), ("site/.", "/srv"), ("site", "/new")):
        (fake.folder / "requests").unlink(missing_ok=True)
        with fake.running():
            assert linkspan("cp", f"{tmp_path}/{source}", f"web:{target}") == (0, "", "")
        results.append(sent(fake))
    body = b"1" * 600
    assert results == [
        ("/srv", {"site": None, "site/sub": None, "site/sub/a": body}),
        ("/srv", {".": None, "./sub": None, "./sub/a": body}),
        ("/", {"new": None, "new/sub": None, "new/sub/a": body}),
    ]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("absent", "/etc", "there is no file or folder"),
        ("site", "/file", "cannot copy a folder over the file"),
        ("conf", "/absent/", "there is no folder"),
        ("conf", "/file/", "is not a folder"),
    ],
)
def test_what_does_not_fit_is_not_sent(
    linkspan: Any, fake: Any, tmp_path: Path, source: str, target: str, message: str
) -> None:
    holds(fake, {"/etc": (DIR, ""), "/file": (0o644, ""), "/file/": (0o644, "")})
    (tmp_path / "site").mkdir()
    (tmp_path / "conf").write_bytes(b"x")
    with fake.running():
        result = linkspan("cp", str(tmp_path / source), f"web:{target}")
    assert result.status != 0
    assert message in result.err
    assert all(r.method != "PUT" for r in fake.requests)


def test_a_container_that_is_missing_is_named(linkspan: Any, fake: Any, tmp_path: Path) -> None:
    holds(fake, {})
    fake.on("GET", "/containers/web/json", {"message": "No such container: web"}, 404)
    (tmp_path / "conf").write_bytes(b"x")
    with fake.running():
        result = linkspan("cp", str(tmp_path / "conf"), "web:/etc")
    assert (result.status, result.err) == (1, "error[LS0102]: No such container: web\n")
