import os
import stat
from pathlib import Path

import pytest
import trio

from linkspan.plugins.dockerfile_builder import kept_folders
from linkspan.plugins.dockerfile_builder.kept_folders import KeptFolders
from linkspan.plugins.dockerfile_builder.mount_option import reads_context
from linkspan.sdk.build_client import FolderEntry
from linkspan.sdk.drivers.builder import PruneRequest
from linkspan.sdk.errors import InvalidArgument, TooLarge
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.testing.fakes.build_client import FakeBuildClient


def client_with(dockerfile: str, **files: str) -> FakeBuildClient:
    client = FakeBuildClient(key="k")
    client.put("dockerfile", "Dockerfile", dockerfile.encode())
    client.folders["context"] = []
    for path, text in files.items():
        client.put("context", path, text.encode())
    return client


def sent(client: FakeBuildClient) -> list[str]:
    """Files of the context that were sent since the last look."""
    found = [path for folder, path in client.sent if folder == "context"]
    client.sent.clear()
    return found


async def test_a_file_that_has_not_changed_is_not_sent_twice(workshop) -> None:
    client = client_with("FROM scratch\nCOPY . /x\n", a="A", b="B")
    await workshop.build(None, client=client, tags=("made",))
    assert sent(client) == ["a", "b"]
    client.put("context", "b", b"BB", mtime_ns=2)
    result, _ = await workshop.build(None, client=client, tags=("made",))
    assert sent(client) == ["b"]
    async with workshop.tree("made") as root:
        found = {name: (trio.Path(root) / "x" / name) for name in "ab"}
        assert await found["a"].read_text() == "A"
        assert await found["b"].read_text() == "BB"
    again, _ = await workshop.build(None, client=client)
    assert (sent(client), again.image_id, again.cached_steps) == ([], result.image_id, 1)


async def test_what_was_selected_before_counts_for_the_same_files_and_step_only(workshop) -> None:
    client = client_with("FROM scratch\nCOPY . /x\n", a="A", b="B")

    async def copied(step: str) -> dict[str, str]:
        client.put("dockerfile", "Dockerfile", f"FROM scratch\n{step}\n".encode())
        await workshop.build(None, client=client, tags=("made",))
        async with workshop.tree("made") as root:
            files = [path for path in sorted(Path(root).rglob("*")) if path.is_file()]
            return {str(path.relative_to(root)): path.read_text() for path in files}

    for _ in range(2):
        assert await copied("COPY . /x") == {"x/a": "A", "x/b": "B"}
        assert await copied("COPY a /x/") == {"x/a": "A"}
        assert await copied("COPY --exclude=a . /x") == {"x/b": "B"}
    assert sent(client) == ["a", "b"]
    client.put("context", "a", b"AA", mtime_ns=2)
    assert await copied("COPY a /x/") == {"x/a": "AA"}
    client.put("context", "a", b"A", mtime_ns=3)
    assert await copied("COPY a /x/") == {"x/a": "A"}
    with pytest.raises(InvalidArgument, match="stat c: file does not exist"):
        await copied("COPY c /x/")
    client.put("context", "c", b"C")
    assert await copied("COPY c /x/") == {"x/c": "C"}


async def test_the_context_is_asked_for_only_where_it_is_read(workshop) -> None:
    client = client_with(
        "FROM scratch AS one\nCOPY <<e /x\nhi\ne\nFROM one\nCOPY --from=one / /y\n", a="A"
    )
    del client.folders["dockerfile"][1:]
    await workshop.build(None, client=client)
    assert sent(client) == []
    assert reads_context("target=/x")
    assert reads_context("type=bind,target=/x")
    assert not reads_context("type=cache,target=/x")
    assert not reads_context("from=one,target=/x")


async def test_what_is_ignored_is_left_out(workshop) -> None:
    client = client_with("FROM scratch\nCOPY . /x\n", a="A", b="B")
    client.put("context", ".dockerignore", b"a\n.dockerignore\n")
    await workshop.build(None, client=client)
    assert sent(client) == [".dockerignore", "b"]
    client.put("dockerfile", "Dockerfile.dockerignore", b"b\n.dockerignore")
    await workshop.build(None, client=client)
    assert sent(client) == [".dockerignore", "a"]


async def test_a_context_of_a_client_and_a_tar_have_one_cache(workshop) -> None:
    dockerfile = "FROM scratch\nCOPY . /x\n"
    client = client_with(dockerfile, a="A")
    client.put("context", "Dockerfile", dockerfile.encode())
    one, _ = await workshop.build(None, client=client)
    other, _ = await workshop.build({"Dockerfile": dockerfile, "a": "A"})
    assert (other.image_id, other.cached_steps) == (one.image_id, 1)


async def test_secrets_and_passwords_come_from_the_client(workshop) -> None:
    client = client_with("FROM private:1\n")
    client.logins = {"docker.io": Credentials(username="u")}
    with pytest.raises(Exception, match="pull access denied"):
        await workshop.build(None, client=client)
    assert workshop.engine.images.pulled == [
        ("docker.io/library/private:1", Credentials(username="u"))
    ]
    client.put(
        "dockerfile", "Dockerfile", b"FROM scratch\nRUN --mount=type=secret,id=tok,required true\n"
    )
    with pytest.raises(InvalidArgument, match="secret tok: not found"):
        await workshop.build(None, client=client)
    client.secrets = {"tok": b"x"}
    client.put(
        "dockerfile", "Dockerfile", b"FROM scratch\nRUN --mount=type=secret,id=tok,env=TOK true\n"
    )
    await workshop.build(None, client=client)
    assert "TOK=x" in workshop.engine.runs[-1].env


@pytest.mark.system
async def test_a_step_reaches_the_clients_ssh_agent(workshop) -> None:
    text = "FROM scratch\nRUN --mount=type=ssh,uid=5,mode=0620 --mount=type=ssh,id=no one\n"
    client = client_with(text)
    client.agents = frozenset({"default"})
    heard: list[bytes] = []
    sources: list[Path] = []

    async def run(step, folder, say) -> int:
        (mount,) = step.mounts
        assert mount.target == "/run/buildkit/ssh_agent.0"
        assert f"SSH_AUTH_SOCK={mount.target}" in step.env
        info = mount.source.stat()
        assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (5, 0o620)
        above = os.open(mount.source.parent, os.O_PATH)
        # A socket's path may have 107 bytes at most.
        async with await trio.open_unix_socket(f"/proc/self/fd/{above}/agent") as stream:
            await stream.send_all(b"sign")
            heard.append(await stream.receive_some(100))
        os.close(above)
        sources.append(mount.source)
        return 0

    workshop.engine.runner = run
    await workshop.build(None, client=client)
    assert heard == [b"default sign"]
    assert not sources[0].parent.exists()
    again, _ = await workshop.build(None, client=client)
    assert again.cached_steps == 1
    client.agents = frozenset()
    client.put("dockerfile", "Dockerfile", b"FROM scratch\nRUN --mount=type=ssh,required two\n")
    with pytest.raises(InvalidArgument, match='no SSH key "default" forwarded from the client'):
        await workshop.build(None, client=client)


async def test_steps_and_what_is_loaded_have_names(workshop) -> None:
    text = "FROM scratch AS base\nENV A=b\nCOPY a /$A\nFROM base\nRUN echo $A $B\n"
    client = client_with(text, a="A")
    await workshop.build(None, client=client, details=True)
    names = [(aux.get("step") or aux.get("work") or {}).get("name") for aux in workshop.aux]
    assert [name for name in names if name] == [
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
        "[internal] load build context",
        "[base 1/1] COPY a /b",
        "[stage-1 1/1] RUN echo b $B",
    ]


async def test_what_clients_sent_is_in_the_cache_and_goes_with_it(workshop) -> None:
    client = client_with("FROM scratch\nCOPY . /x\n", a="A")
    await workshop.build(None, client=client)
    kept = [e for e in await workshop.driver.cache_entries() if e.kind == "source.local"]
    assert [(e.description, e.size_bytes) for e in kept] == [("local source for context", 1)]
    gone = await workshop.driver.prune(PruneRequest())
    assert kept[0].id in gone.removed
    sent(client)
    await workshop.build(None, client=client)
    assert sent(client) == ["a"]


def folders(tmp_path, **limits: int) -> KeptFolders:
    given = {"max_entries": 100, "max_bytes": 1000, "max_kept_bytes": 1000, **limits}
    return KeptFolders(tmp_path, **given)


def listed(*entries: FolderEntry) -> FakeBuildClient:
    return FakeBuildClient(key="k", folders={"context": [(e, b"x" * e.size) for e in entries]})


@pytest.mark.parametrize(
    "entry",
    [
        FolderEntry("../x", "file", 0o644),
        FolderEntry("/etc/x", "file", 0o644),
        FolderEntry("none/x", "file", 0o644),
        FolderEntry("", "directory", 0o755),
        FolderEntry(".", "directory", 0o755),
        FolderEntry("..", "directory", 0o755),
        FolderEntry("x\0y", "file", 0o644),
        FolderEntry("x", "file", 0o644, link="none"),
    ],
)
async def test_a_hostile_folder_is_refused(tmp_path, entry: FolderEntry) -> None:
    kept = folders(tmp_path)
    with pytest.raises(InvalidArgument) as caught:
        async with kept.receive(listed(entry), "context"):
            pass
    assert caught.value.code == "hostile_context"
    kept.close()


@pytest.mark.parametrize(
    "entries",
    [
        [FolderEntry("a", "file", 0o644, size=600), FolderEntry("b", "file", 0o644, size=600)],
        [FolderEntry("a", "file", 0o644, size=-1)],
        [FolderEntry(f"f{n}", "file", 0o644) for n in range(101)],
    ],
)
async def test_a_folder_that_is_too_large_is_refused(tmp_path, entries) -> None:
    kept = folders(tmp_path)
    with pytest.raises(TooLarge):
        async with kept.receive(listed(*entries), "context"):
            pass
    kept.close()


async def test_links_and_other_files_are_what_they_are(tmp_path) -> None:
    client = listed(
        FolderEntry("a", "file", 0o4755, size=3, mtime_ns=5),
        FolderEntry("b", "file", 0o4755, link="a"),
        FolderEntry("d", "directory", 0o700),
        FolderEntry("d/fifo", "fifo", 0o600),
        FolderEntry("d/link", "symlink", 0o777, link="../a"),
        FolderEntry("s", "", 0o777),
    )
    kept = folders(tmp_path)
    async with kept.receive(client, "context") as received:
        tree = received.tree
        assert tree.lookup("b") is tree.lookup("a") is tree.lookup("d/link")
        assert tree.lookup("a").mode == 0o4755
        assert tree.lookup("d/fifo").kind == "fifo"
        assert tree.lookup("s") is None
        with tree.open(tree.lookup("b")) as file:
            assert file.read() == b"xxx"
    kept.close()


async def test_what_is_kept_has_its_limits(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(kept_folders, "_WORTH_PACKING_BYTES", 10)
    client = listed(
        FolderEntry("a", "file", 0o644, size=5), FolderEntry("b", "file", 0o644, size=1)
    )
    kept = folders(tmp_path, max_kept_bytes=50)
    for mtime in range(1, 12):
        client.put("context", "a", b"%05d" % mtime, mtime_ns=mtime)
        async with kept.receive(client, "context") as received:
            tree = received.tree
            with tree.open(tree.lookup("a")) as file:
                assert file.read() == b"%05d" % mtime
            with tree.open(tree.lookup("b")) as file:
                assert file.read() == b"x"
    assert [path for _, path in client.sent].count("b") == 1
    (folder,) = kept.folders()
    assert folder.size_bytes < 20
    other = FakeBuildClient(key="other")
    other.put("context", "big", bytes(45))
    async with kept.receive(other, "context"):
        pass
    assert [folder.size_bytes for folder in kept.folders()] == [45]
    async with kept.receive(FakeBuildClient(folders=other.folders), "context"):
        pass
    assert len(kept.folders()) == 1, "a client that has no key is not kept"
    kept.close()


async def test_two_builds_of_one_folder_do_not_disturb_each_other(tmp_path) -> None:
    client = listed(FolderEntry("a", "file", 0o644, size=1))
    kept = folders(tmp_path)
    async with kept.receive(client, "context") as one:
        client.put("context", "a", b"new", mtime_ns=9)
        async with kept.receive(client, "context") as other:
            for received, text in ((one, b"x"), (other, b"new")):
                with received.tree.open(received.tree.lookup("a")) as file:
                    assert file.read() == text
        assert not kept.remove(kept.folders()[0].id), "it is in use"
    assert kept.remove(kept.folders()[0].id)
    kept.close()
