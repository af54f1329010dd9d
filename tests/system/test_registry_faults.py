"""Registries that are down, refuse, lie or break off: what a user is told, and that nothing half-made stays."""

import contextlib
import gzip
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from daemon_harness.daemon import Daemon, until
from daemon_harness.scripted import (
    Answer,
    Picture,
    Question,
    picture,
    ranged,
    scripted_registry,
    sha256,
    tar_of,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

BUSYBOX = Path("/bin/busybox").read_bytes()


@pytest.fixture
def image() -> Picture:
    """Busybox, and 3 MB that are new each time, so that nothing is there already."""
    return picture(tar_of(("bin/busybox", BUSYBOX)), tar_of(("cargo", os.urandom(3_000_000))))


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon in which nothing half-made may be seen in the end."""
    before = daemon.images()
    yield daemon
    assert {tag for tag in daemon.images() - before if "good" not in tag} == set()
    assert daemon.containers() == []


def is_layer(question: Question, image: Picture, number: int = -1) -> bool:
    """Whether a question is for a layer of an image."""
    return question.path.endswith(sha256(image.layers[number]))


async def test_a_registry_that_is_down_is_named_by_every_command(client: Daemon) -> None:
    reference = "127.0.0.1:1/app:1"
    context = client.write_context(f"FROM {reference}\nRUN true\n")
    for status, *words in (
        (1, "pull", reference),
        (125, "run", reference),
        (1, "build", "-t", "x", str(context)),
    ):
        said = (await client.cli_beside(*words, status=status)).err
        assert "127.0.0.1:1" in said
        assert "connection refused" in said
    await client.cli_beside("tag", "busybox", "127.0.0.1:1/good:1")
    said = (await client.cli_beside("push", "127.0.0.1:1/good:1", status=1)).err
    assert "127.0.0.1:1" in said
    assert "connection refused" in said


async def test_a_registry_that_wants_a_login_says_which_command_gives_it(
    client: Daemon, image: Picture
) -> None:
    def refuse(question: Question) -> Answer:
        return Answer(
            status=401,
            headers={"WWW-Authenticate": 'Basic realm="harbour"'},
            body=b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}',
        )

    async with scripted_registry(image, refuse) as registry:
        said = (await client.cli_beside("pull", f"{registry.address}/app:1", status=1)).err
    assert f"{registry.address}/app" in said
    assert "denied" in said
    assert f"docker login {registry.address}" in said


async def test_a_busy_registry_is_asked_again_when_it_said_so(
    client: Daemon, image: Picture
) -> None:
    refused: dict[str, float] = {}
    came_back: dict[str, float] = {}

    def busy_once(question: Question) -> Answer | None:
        if "/manifests/" in question.path or is_layer(question, image):
            if question.path not in refused:
                refused[question.path] = time.monotonic()
                return Answer(status=429, headers={"Retry-After": "1"})
            came_back.setdefault(question.path, time.monotonic())
        return None

    async with scripted_registry(image, busy_once) as registry:
        await client.cli_beside("pull", f"{registry.address}/good:1")
        said = await client.cli_beside(
            "run", "--rm", f"{registry.address}/good:1", "/bin/busybox", "ls"
        )
    assert "cargo" in said.out
    assert len(refused) == 2
    assert all(came_back[path] - refused[path] >= 1 for path in refused)


async def test_a_registry_that_stays_busy_for_too_long_is_an_error(
    client: Daemon, image: Picture
) -> None:
    def busy(question: Question) -> Answer | None:
        return Answer(status=429, headers={"Retry-After": "3600"})

    async with scripted_registry(image, busy) as registry:
        said = (await client.cli_beside("pull", f"{registry.address}/app:1", status=1)).err
    assert registry.address in said
    assert "429" in said or "too many requests" in said.lower()


async def test_a_layer_over_a_line_that_breaks_goes_on_where_it_stopped(
    client: Daemon, image: Picture
) -> None:
    cuts = [1_000_000, 600_000, 700_000]
    begins: list[str] = []

    def cut(question: Question) -> Answer | None:
        if not is_layer(question, image):
            return None
        begins.append(question.headers.get("range", ""))
        answer = ranged(question, image.layers[-1])
        return attrs.evolve(answer, cut_after=cuts.pop(0)) if cuts else answer

    async with scripted_registry(image, cut) as registry:
        await client.cli_beside("pull", f"{registry.address}/good:1")
        said = await client.cli_beside(
            "run", "--rm", f"{registry.address}/good:1", "/bin/busybox", "wc", "-c", "/cargo"
        )
    assert said.out.split()[0] == "3000000"
    assert begins[0] == ""
    starts = [int(begin.removeprefix("bytes=").partition("-")[0]) for begin in begins[1:]]
    assert len(starts) == 3
    assert starts == sorted(starts)
    assert starts[0] > 0


async def test_a_manifest_that_is_not_what_its_digest_says_is_refused(
    client: Daemon, image: Picture
) -> None:
    other = picture(tar_of(("bin/busybox", b"something else")))

    def lie(question: Question) -> Answer | None:
        if "/manifests/" in question.path:
            kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
            return Answer(headers=kind, body=other.manifest)
        return None

    async with scripted_registry(image, lie) as registry:
        reference = f"{registry.address}/app@{image.digest}"
        said = (await client.cli_beside("pull", reference, status=1)).err
    assert image.digest in said
    assert "digest" in said


def truncated(blob: bytes) -> bytes:
    return blob[: len(blob) // 2]


def damaged(blob: bytes) -> bytes:
    at = len(blob) // 2
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


def replaced(blob: bytes) -> bytes:
    return gzip.compress(tar_of(("bin/busybox", b"#!/bin/evil")))


@pytest.mark.parametrize("spoil", [truncated, damaged, replaced])
async def test_a_layer_that_is_not_what_its_digest_says_is_refused(
    client: Daemon, image: Picture, spoil: Callable[[bytes], bytes]
) -> None:
    spoilt = spoil(image.layers[-1])

    def lie(question: Question) -> Answer | None:
        return ranged(question, spoilt) if is_layer(question, image) else None

    async with scripted_registry(image, lie) as registry:
        said = (await client.cli_beside("pull", f"{registry.address}/app:1", status=1)).err
    assert sha256(image.layers[-1]).removeprefix("sha256:")[:12] in said
    # The registry is well again: the next pull is not hurt by what came before.
    async with scripted_registry(image) as registry:
        await client.cli_beside("pull", f"{registry.address}/good:1")
        await client.cli_beside("run", "--rm", f"{registry.address}/good:1")


async def test_a_config_that_is_not_what_its_digest_says_is_refused(
    client: Daemon, image: Picture
) -> None:
    def lie(question: Question) -> Answer | None:
        is_config = question.path.endswith(sha256(image.config))
        return Answer(body=image.config.replace(b"busybox", b"badybox")) if is_config else None

    async with scripted_registry(image, lie) as registry:
        said = (await client.cli_beside("pull", f"{registry.address}/app:1", status=1)).err
    assert "config" in said
    assert "digest" in said


@pytest.mark.parametrize("body", [b"", b"<html>no registry</html>", b'{"schemaVersion": 2}', b"[]"])
async def test_what_is_no_manifest_is_said_to_be_none(
    client: Daemon, image: Picture, body: bytes
) -> None:
    def lie(question: Question) -> Answer | None:
        kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        return Answer(headers=kind, body=body) if "/manifests/" in question.path else None

    async with scripted_registry(image, lie) as registry:
        said = (await client.cli_beside("pull", f"{registry.address}/app:1", status=1)).err
    assert "manifest" in said
    assert "fault of linkspan" not in said


# -- hostile layers -------------------------------------------------------------------------------


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


async def test_a_layer_that_climbs_out_through_a_link_stays_inside(
    client: Daemon, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    hostile = picture(
        tar_of(("bin/busybox", BUSYBOX), link("esc", str(outside))),
        tar_of(("esc/planted", b"x")),
    )
    async with scripted_registry(hostile) as registry:
        done = await client.cli_beside("pull", f"{registry.address}/good:1", status=None)
    assert list(outside.iterdir()) == []
    if done.status == 0:
        where = f"{outside}/planted"
        said = await client.cli_beside(
            "run", "--rm", f"{registry.address}/good:1", "/bin/busybox", "cat", where
        )
        assert said.out == "x"


@pytest.mark.parametrize(
    "entry",
    [
        ("../../../../../../../../tmp/linkspan-planted", b"x"),
        ("bin/.wh...", b""),
        link("shadow", "../../../../../../../../etc/shadow", tarfile.LNKTYPE),
    ],
    ids=["dotdot-name", "whiteout-dotdot", "hardlink-outside"],
)
async def test_a_layer_whose_names_lead_out_is_refused_or_confined(
    client: Daemon, entry: tarfile.TarInfo | tuple[str, bytes]
) -> None:
    hostile = picture(tar_of(("bin/busybox", BUSYBOX)), tar_of(entry))
    async with scripted_registry(hostile) as registry:
        said = (await client.cli_beside("pull", f"{registry.address}/app:1", status=1)).err
    assert not Path("/tmp/linkspan-planted").exists()
    assert "layer" in said


async def test_a_gzip_bomb_ends_at_the_size_limit(
    new_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    limited = new_daemon(config="[snapshots.overlay]\nlayer-limit = 20_000_000\n").start()
    bomb = picture(tar_of(("bin/busybox", BUSYBOX)), tar_of(("zeros", bytes(60_000_000))))
    assert len(bomb.layers[-1]) < 1_000_000
    async with scripted_registry(bomb) as registry:
        said = (await limited.cli_beside("pull", f"{registry.address}/app:1", status=1)).err
    assert sha256(bomb.layers[-1]).removeprefix("sha256:")[:12] in said
    assert "unpacks to more than 20000000 bytes" in said
    assert limited.images() == set()
    # What was unpacked so far is thrown away behind the answer.
    until("nothing of it is kept", lambda: disk_usage(limited.data_root) < 20_000_000)


def disk_usage(folder: Path) -> int:
    """Bytes that files take, while some of them may go."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(where, name).lstat().st_blocks * 512
    return total
