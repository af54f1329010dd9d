"""ADD of git repositories, from a git server on loopback."""

import os
import subprocess
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from daemon_harness.ports import free_port

from linkspan.plugins.dockerfile_builder.fault import DockerfileError
from linkspan.plugins.dockerfile_builder.git_source import GitSource, parse_git
from linkspan.plugins.dockerfile_builder.selection import TransferError
from linkspan.sdk.drivers.builder import BuildRequest
from linkspan.sdk.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("https://a.test/x.git", GitSource(url="https://a.test/x.git")),
        (
            "https://a.test/x.git#v1:docs/en",
            GitSource(url="https://a.test/x.git", ref="v1", subdir="docs/en"),
        ),
        ("git@a.test:x#:sub", GitSource(url="git@a.test:x", subdir="sub")),
        ("github.com/a/b", GitSource(url="https://github.com/a/b")),
        (
            "https://a.test/x.git?tag=v2&subdir=d&submodules=false&keep-git-dir=true",
            GitSource(
                url="https://a.test/x.git",
                ref="v2",
                subdir="d",
                submodules=False,
                keep_git_dir=True,
            ),
        ),
        (
            "git://a.test/x?branch=main&commit=0123456789",
            GitSource(url="git://a.test/x", ref="main", commit="0123456789"),
        ),
    ],
)
def test_a_repository_is_named_in_dockers_ways(text, source):
    assert parse_git(text) == source


@pytest.mark.parametrize(
    "text",
    [
        "git://a/x?what=y",
        "git://a/x?branch=a&tag=b",
        "git://a/x?branch=a#b",
        "git://a/x#--upload-pack=evil",
        "git://a/x#main:../..",
        "git://a/x?commit=xyz",
    ],
)
def test_what_is_unknown_or_unsafe_is_refused(text):
    with pytest.raises(TransferError):
        parse_git(text)


def git(folder, *words):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        **{
            f"GIT_{who}_{what}": "x@test"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    done = subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
async def repository(tmp_path, nursery):
    """``url``, and the ids of its two commits; the first has the tag ``v1``."""
    folder = tmp_path / "served" / "repo"
    (folder / "docs").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "docs/a.md").write_text("one")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    git(folder, "tag", "v1")
    first = git(folder, "rev-parse", "HEAD")
    (folder / "docs/a.md").write_text("two")
    git(folder, "commit", "-q", "-am", "two")
    port = free_port()
    words = ["--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}"]
    server = await trio.lowlevel.open_process(
        ["git", "daemon", *words, f"--base-path={tmp_path}/served", f"{tmp_path}/served"],
        stderr=subprocess.DEVNULL,
    )
    with trio.fail_after(30):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                break
            except OSError:
                await trio.sleep(0.01)
    yield SimpleNamespace(
        url=f"git://127.0.0.1:{port}/repo",
        first=first,
        second=git(folder, "rev-parse", "HEAD"),
        folder=folder,
    )
    server.terminate()
    await server.wait()


async def files(workshop, *lines, **request):
    text = "\n".join(["FROM scratch", *lines, ""])
    result, _ = await workshop.build({"Dockerfile": text}, tags=("app",), **request)
    root = Path(workshop.root("app"))
    found = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
    return result, found


async def test_the_default_branch_is_added_without_its_history(workshop, repository):
    _, found = await files(workshop, f"ADD {repository.url} /src")
    assert sorted(found) == ["src/docs/a.md", "src/run.sh"]
    assert found["src/docs/a.md"].read_text() == "two"
    assert found["src/run.sh"].stat().st_mode & 0o777 == 0o755
    assert found["src/docs/a.md"].stat().st_mode & 0o777 == 0o644


async def test_a_tag_a_commit_and_a_folder_can_be_asked_for(workshop, repository):
    _, found = await files(workshop, f"ADD {repository.url}#v1:docs /d/")
    assert {name: path.read_text() for name, path in found.items()} == {"d/a.md": "one"}
    _, found = await files(workshop, f"ADD {repository.url}#{repository.first} /d/")
    assert found["d/docs/a.md"].read_text() == "one"
    _, found = await files(workshop, f"ADD --keep-git-dir=true {repository.url} /d")
    assert "d/.git/HEAD" in found


async def test_the_cache_goes_by_the_commit(workshop, repository, fake_host):
    line = f"ADD {repository.url} /src"
    first, _ = await files(workshop, line)
    again, _ = await files(workshop, line)
    assert (first.cached_steps, again.cached_steps) == (0, 1)
    (repository.folder / "docs/a.md").write_text("three")
    git(repository.folder, "commit", "-q", "-am", "three")
    changed, found = await files(workshop, line)
    assert changed.cached_steps == 0
    assert found["src/docs/a.md"].read_text() == "three"
    assert list((fake_host.state_dir / "git-checkouts").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ADD {url}#nowhere /x", "git fetch failed: fatal: couldn't find remote ref nowhere"),
        ("ADD {url}#main:none /x", "the repository has no folder 'none'"),
        ("ADD {url}/none /x", "git fetch failed"),
        ("ADD --checksum=0123456789 {url}#main /x", "expected checksum to match 0123456789, got "),
        ("ADD {url}#0123456789012345678901234567890123456789 /x", "git rev-parse failed"),
        ("COPY {url} /x", "source can't be a URL for COPY"),
    ],
)
async def test_what_cannot_be_had_names_the_line(workshop, repository, line, why):
    with pytest.raises(DockerfileError, match="Dockerfile:2: ") as caught:
        await files(workshop, line.replace("{url}", repository.url))
    assert why in str(caught.value)


async def test_a_checksum_that_fits_is_accepted(workshop, repository):
    _, found = await files(
        workshop, f"ADD --checksum={repository.second[:12]} {repository.url}#main /x"
    )
    assert found["x/docs/a.md"].read_text() == "two"


async def test_a_repository_can_be_the_context(workshop, repository):
    (repository.folder / "Dockerfile").write_text("FROM scratch\nCOPY . /x\n")
    (repository.folder / ".dockerignore").write_text("run.sh\n")
    git(repository.folder, "add", ".")
    git(repository.folder, "commit", "-q", "-m", "builds")
    await workshop.driver.build(
        BuildRequest(context=Path("/nonexistent"), remote=f"{repository.url}#main", tags=("app",)),
        lambda _: None,
    )
    root = Path(workshop.root("app"), "x")
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert found == [".dockerignore", "Dockerfile", "docs/a.md"]


@pytest.mark.parametrize("kind", ["archive", "dockerfile"])
async def test_an_address_can_be_the_context(workshop, tools, nursery, kind):
    text = "FROM scratch\nLABEL a=b\n" + ("COPY f /f\n" if kind == "archive" else "")
    body = tools.tar_of({"Dockerfile": text, "f": "F"}) if kind == "archive" else text.encode()

    async def answer(stream):
        async with stream:
            await stream.receive_some(65536)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            await stream.send_all(head.encode() + body)

    listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    remote = f"http://127.0.0.1:{port}/context"
    request = BuildRequest(context=Path("/nonexistent"), remote=remote, tags=("app",))
    await workshop.driver.build(request, lambda _: None)
    assert workshop.image("app").config.labels == {"a": "b"}
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "remote",
    ["client-session", "file:///etc/passwd", "http://127.0.0.1:1/x", "git://127.0.0.1:1/x"],
)
async def test_a_context_that_cannot_be_had_is_an_error(workshop, remote):
    request = BuildRequest(context=Path("/nonexistent"), remote=remote)
    with pytest.raises(InvalidArgument) as caught:
        await workshop.driver.build(request, lambda _: None)
    assert caught.value.code == "remote_context"
