"""Contexts on the command line."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linkspan: Any) -> Path:
    """A home of its own, and no address in the environment."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    # The usual address is this machine's own daemon: not for tests to ask or to start.
    usual = f"unix://{tmp_path}/usual.sock"
    monkeypatch.setattr("linkspan.core.client.resolve.DEFAULT_HOST", usual)
    monkeypatch.setattr("linkspan.core.client.resolve.read_table", lambda *_: {"autostart": False})
    for name in ("LINKSPAN_HOST", "LINKSPAN_CONTEXT", "DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_context_is_made_used_and_forgotten(linkspan: Any, fake: Any) -> None:
    fake.on("GET", "/containers/json", [])
    assert linkspan("context", "create", "here", "--docker", f"host={fake.url}").out == "here\n"
    assert linkspan("ps").status == 69
    with fake.running():
        assert linkspan("--context", "here", "ps").status == 0
        assert linkspan("ps", "--context", "here", "-q").status == 0
        assert linkspan("context", "use", "here").out == "here\n"
        assert linkspan("ps").status == 0
        assert linkspan("--context", "default", "ps").status == 69
    assert linkspan("context", "show").out == "here\n"
    used = linkspan("context", "rm", "here")
    assert (used.status, "is in use" in used.err) == (1, True)
    assert linkspan("context", "use", "default").status == 0
    assert linkspan("context", "rm", "here").out == "here\n"
    assert linkspan("--context", "here", "ps").status == 1


def test_the_list_says_which_one_is_used(linkspan: Any) -> None:
    linkspan("context", "create", "far", "--docker", "host=ssh://h", "--description", "the server")
    linkspan("context", "use", "far")
    lines = linkspan("context", "ls").out.splitlines()
    assert lines[0].split() == ["NAME", "USED", "ADDRESS", "DESCRIPTION"]
    assert lines[2].split() == ["far", "*", "ssh://h", "the", "server"]
    assert linkspan("context", "ls", "-q").out == "default\nfar\n"


def test_what_docker_has_written_is_read(linkspan: Any, home: Path) -> None:
    folder = home / "docker/contexts/meta/anything"
    folder.mkdir(parents=True)
    endpoint = {"Host": "tcp://h:1", "SkipTLSVerify": False}
    text = json.dumps({"Name": "docks", "Metadata": {}, "Endpoints": {"docker": endpoint}})
    (folder / "meta.json").write_text(text)
    assert "tcp://h:1" in linkspan("context", "ls").out


def test_a_context_goes_to_another_machine_with_its_keys(linkspan: Any, home: Path) -> None:
    (home / "ca.pem").write_text("CA")
    (home / "key.pem").write_text("KEY")
    endpoint = f"host=tcp://h:1,ca={home}/ca.pem,key={home}/key.pem,skip-tls-verify=true"
    linkspan("context", "create", "prod", "--docker", endpoint)
    file = home / "prod.dockercontext"
    assert linkspan("context", "export", "prod", str(file)).status == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert linkspan("context", "export", "prod", str(file)).status == 1
    assert linkspan("context", "import", "copy", str(file)).out == "copy\n"
    found = json.loads(linkspan("context", "inspect", "copy").out)[0]
    assert found["Endpoints"]["docker"] == {"Host": "tcp://h:1", "SkipTLSVerify": True}
    assert found["TLSMaterial"] == {"docker": ["ca.pem", "key.pem"]}
    assert "KEY" not in linkspan("context", "inspect", "copy").out


@pytest.mark.parametrize("content", [b"", b"x" * 2048, None], ids=["empty", "noise", "no-meta"])
def test_a_file_that_holds_no_context_is_refused(
    linkspan: Any, home: Path, content: bytes | None
) -> None:
    file = home / "x"
    if content is None:
        with tarfile.open(file, "w"):
            pass
    else:
        file.write_bytes(content)
    result = linkspan("context", "import", "copy", str(file))
    assert (result.status, "holds no context" in result.err) == (2, True)
    assert linkspan("context", "ls", "-q").out == "default\n"


def test_an_update_changes_only_what_is_named(linkspan: Any) -> None:
    linkspan("context", "create", "far", "--docker", "host=ssh://h", "--description", "text")
    linkspan("context", "update", "far", "--docker", "host=ssh://other")
    found = json.loads(linkspan("context", "inspect", "far").out)[0]
    assert found["Endpoints"]["docker"]["Host"] == "ssh://other"
    assert found["Metadata"] == {"Description": "text"}
    assert linkspan("context", "create", "copy", "--from", "far").status == 0
    assert (
        json.loads(linkspan("context", "inspect", "copy").out)[0]["Endpoints"] == found["Endpoints"]
    )


@pytest.mark.parametrize(
    "words",
    [
        ["create", "far"],
        ["create", "far", "--docker", "host"],
        ["create", "far", "--docker", "colour=red"],
        ["create", "default", "--docker", "host=ssh://h"],
        ["create", "far", "--docker", "host=far.example.test"],
        ["rm", "default"],
        ["use", "absent"],
        ["rm", "absent"],
        ["update", "absent"],
        ["inspect", "absent"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_said(linkspan: Any, words: list[str]) -> None:
    result = linkspan("context", *words)
    assert result.status in (1, 2)
    assert result.err.startswith("error")


def test_a_daemon_elsewhere_is_not_started_from_here(linkspan: Any) -> None:
    linkspan("context", "create", "far", "--docker", "host=ssh://h")
    result = linkspan("--context", "far", "daemon", "start")
    assert (result.status, "is not on this machine" in result.err) == (1, True)


def test_a_daemon_without_a_socket_is_not_started_from_here(
    linkspan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = {"host": ["tcp://127.0.0.1:1"]}
    monkeypatch.setattr("linkspan.core.client.resolve.read_table", lambda *_: only)
    result = linkspan("daemon", "start")
    assert result.status == 1
    assert "the config has no socket for the daemon, only tcp://127.0.0.1:1\n" in result.err
    assert "or: linkspan daemon run\n" in result.err


@pytest.mark.parametrize("words", [["daemon", "start"], ["daemon", "stop"]])
def test_dockers_daemon_is_neither_started_nor_stopped(
    linkspan: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, home: Path, words: list[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setenv("DOCKER_HOST", fake.url)
    monkeypatch.setattr("linkspan.core.daemon.start.stop_running", lambda url: asked.append(url))
    monkeypatch.setattr(
        "linkspan.core.daemon.start.ask", lambda url: asked.append(url) or {"pid": 1}
    )
    assert linkspan(*words).status == 0
    assert asked == [f"unix://{home}/usual.sock"]


def test_an_address_of_the_environment_goes_before_contexts_and_is_the_default_one(
    linkspan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    linkspan("context", "create", "far", "--docker", "host=ssh://h")
    linkspan("context", "use", "far")
    assert linkspan("context", "show").out == "far\n"
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    assert linkspan("context", "show").out == "default\n"
    listed = linkspan("context", "ls", "--format", "{{.Name}} {{.Current}} {{.DockerEndpoint}}").out
    assert listed.splitlines() == ["default true tcp://127.0.0.1:1", "far false ssh://h"]
    assert linkspan("--context", "far", "context", "show").out == "far\n"


@pytest.mark.parametrize(("cut", "status"), [(0, 0), (1, 2)])
def test_an_archive_of_dockers_has_no_end_and_is_read_if_its_files_are_whole(
    linkspan: Any, tmp_path: Path, cut: int, status: int
) -> None:
    key = b"k" * 700
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        document = {"Name": "x", "Endpoints": {"docker": {"Host": "tcp://h:2376"}}}
        for name, data in (
            ("meta.json", json.dumps(document).encode()),
            ("tls/docker/key.pem", key),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    end = out.getvalue().rindex(b"k") + 1
    file = tmp_path / "x.dockercontext"
    file.write_bytes(out.getvalue()[: end - cut])
    assert linkspan("context", "import", "copy", str(file)).status == status
    if not status:
        found = json.loads(linkspan("context", "inspect", "copy").out)[0]
        assert found["TLSMaterial"] == {"docker": ["key.pem"]}
