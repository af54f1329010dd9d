"""Registries that fail in the middle of a pull, as the docker CLI and docker-py see them."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
import trio
from daemon_harness.daemon import PATIENCE_S, Daemon, Done, until
from daemon_harness.scripted import (
    MANIFEST,
    Answer,
    Fault,
    Picture,
    Question,
    picture,
    scripted_registry,
    sha256,
    tar_of,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

BUSYBOX = Path("/bin/busybox").read_bytes()
GONE = "http://127.0.0.1:1/gone"


def cargo() -> Picture:
    """Busybox, and a layer that is new each time."""
    return picture(tar_of(("bin/busybox", BUSYBOX)), tar_of(("cargo", os.urandom(2_000_000))))


def at_layer(answer: Callable[[bytes], Answer]) -> Callable[[Picture], Fault]:
    """Wherever the last layer is asked for."""

    def make(image: Picture) -> Fault:
        layer = image.layers[-1]
        return lambda question: answer(layer) if question.path.endswith(sha256(layer)) else None

    return make


def at_manifest(answer: Answer) -> Callable[[Picture], Fault]:
    return lambda _: lambda question: answer if "/manifests/" in question.path else None


def everywhere(answer: Answer) -> Callable[[Picture], Fault]:
    return lambda _: lambda question: answer


def refused(status: int, code: str, message: str, **headers: str) -> Answer:
    body = f'{{"errors": [{{"code": "{code}", "message": "{message}"}}]}}'.encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=names, body=body)


# What the registry does, and what each client must be told of it.
FAULTS: dict[str, tuple[Callable[[Picture], Fault], str]] = {
    "a layer that breaks off always": (
        at_layer(lambda layer: Answer(body=layer, cut_after=500_000)),
        "after 500000 of",
    ),
    "a layer that is not there": (
        at_layer(lambda _: refused(404, "BLOB_UNKNOWN", "blob unknown to registry")),
        "blob unknown to registry",
    ),
    "a layer that ends too early": (
        at_layer(lambda layer: Answer(body=layer[:-1000])),
        "is not what the manifest says",
    ),
    "a layer of other bytes": (
        at_layer(lambda layer: Answer(body=layer[:1_000_000] + bytes(len(layer) - 1_000_000))),
        "layer ",
    ),
    "a layer that lies where nobody is": (
        at_layer(lambda _: Answer(status=307, headers={"Location": GONE})),
        "connection refused",
    ),
    "a layer that leads in circles": (
        at_layer(
            lambda layer: Answer(status=307, headers={"Location": f"/v2/app/blobs/{sha256(layer)}"})
        ),
        "redirects",
    ),
    "a manifest that is not there": (
        at_manifest(refused(404, "MANIFEST_UNKNOWN", "manifest unknown")),
        "manifest unknown",
    ),
    "a manifest that is none": (
        at_manifest(Answer(headers={"Content-Type": MANIFEST}, body=b"<html>")),
        "it is not JSON",
    ),
    "a registry that is broken": (
        at_manifest(refused(500, "UNKNOWN", "the harbour is on fire")),
        "the harbour is on fire",
    ),
    "a registry that wants less": (
        at_manifest(refused(429, "TOOMANYREQUESTS", "slow down", Retry_After="3600")),
        "slow down",
    ),
    "a registry that denies": (
        at_manifest(refused(403, "DENIED", "requested access is denied")),
        "pull access denied for",
    ),
    "a token server that is down": (
        everywhere(Answer(status=401, headers={"WWW-Authenticate": f'Bearer realm="{GONE}"'})),
        "connection refused",
    ),
}


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon in which nothing half-made may be left."""
    before, files = daemon.images(), unfinished(daemon)
    yield daemon
    assert daemon.images() == before
    assert not daemon.complaints()
    until("nothing half-made lies about", lambda: unfinished(daemon) <= files)


def unfinished(daemon: Daemon) -> set[str]:
    """Layers that are being unpacked; what has arrived of a blob stays for the next try."""
    return {str(path) for path in (daemon.data_root / "snapshots-overlay/staging").iterdir()}


async def docker_beside(daemon: Daemon, *words: str, status: int | None = 0) -> Done:
    """As ``daemon.docker``, while the registry goes on."""
    return await trio.to_thread.run_sync(partial(daemon.docker, *words, status=status))


@pytest.mark.parametrize("what", FAULTS)
async def test_both_clients_are_told_and_nothing_half_made_stays(client: Daemon, what: str) -> None:
    make, words = FAULTS[what]
    image = cargo()
    async with scripted_registry(image, make(image)) as registry:
        name = f"{registry.address}/app"
        by_python: list[str] = []

        async def with_python() -> None:
            by_python.append(await trio.to_thread.run_sync(pull_with_python, client, name))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(with_python)
            by_cli = await docker_beside(client, "pull", f"{name}:1", status=1)
    assert words in by_cli.err
    assert "internal error" not in by_cli.said
    assert words in by_python[0]


def pull_with_python(daemon: Daemon, name: str) -> str:
    """What docker-py is told, by an exception or in the stream."""
    connection = docker.DockerClient(base_url=daemon.url)
    try:
        said: list[dict[str, Any]] = list(
            connection.api.pull(name, tag="1", stream=True, decode=True)
        )
        # What pulls images for people raises this, whatever stood in the stream.
        with pytest.raises(docker.errors.ImageNotFound):
            connection.images.get(f"{name}:1")
        error = said[-1]["errorDetail"]["message"]
        assert said[-1]["error"] == error
        return str(error)
    except docker.errors.APIError as error:
        return str(error)
    finally:
        connection.close()


async def test_a_registry_that_gets_well_is_asked_again_within_one_pull(client: Daemon) -> None:
    image = cargo()
    layer = sha256(image.layers[-1])
    faults = [
        Answer(status=503),
        Answer(body=image.layers[-1], cut_after=700_000),
        Answer(status=500),
    ]

    def ill(question: Question) -> Answer | None:
        return faults.pop() if faults and question.path.endswith(layer) else None

    async with scripted_registry(image, ill) as registry:
        reference = f"{registry.address}/app:1"
        done = await docker_beside(client, "pull", reference)
        assert f"Status: Downloaded newer image for {reference}" in done.out
        assert faults == []
        count = ("/bin/busybox", "wc", "-c", "/cargo")
        assert (await docker_beside(client, "run", "--rm", reference, *count)).out.split()[0] == (
            "2000000"
        )
        await docker_beside(client, "rmi", reference)


async def test_of_two_pulls_of_one_image_the_other_goes_on_when_one_is_killed(
    client: Daemon,
) -> None:
    image = cargo()
    layer, half = image.layers[-1], 1_000_000
    goes_on = trio.Event()

    def hold(question: Question) -> Answer | None:
        if question.path.endswith(sha256(layer)) and "range" not in question.headers:
            return Answer(body=layer, hold_after=half, goes_on=goes_on)
        return None

    async with scripted_registry(image, hold) as registry:
        reference = f"{registry.address}/app:1"
        pulls = [begin_pull(client, reference) for _ in range(2)]
        try:
            for pull in pulls:
                await trio.to_thread.run_sync(read_until, pull, "Pulling fs layer")
            pulls[0].kill()
            await trio.to_thread.run_sync(pulls[0].wait)
            goes_on.set()
            out, _ = await trio.to_thread.run_sync(
                partial(pulls[1].communicate, timeout=PATIENCE_S)
            )
        finally:
            for pull in pulls:
                pull.kill()
                pull.communicate()
        assert pulls[1].returncode == 0, out
        await docker_beside(client, "run", "--rm", reference)
        await docker_beside(client, "rmi", reference)


def begin_pull(daemon: Daemon, reference: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["docker", "pull", reference],
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"the pull ended before it said {words!r}")
