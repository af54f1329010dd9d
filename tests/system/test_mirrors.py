"""Mirrors of Docker Hub, and registries with users, as the stock docker command line meets them."""

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from daemon_harness.daemon import Daemon, Done
from daemon_harness.hub import docker_hub
from daemon_harness.ports import free_port
from daemon_harness.scripted import (
    Answer,
    Picture,
    Question,
    ScriptedRegistry,
    picture,
    ranged,
    scripted_registry,
    sha256,
    tar_of,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

USER = "Basic " + base64.b64encode(b"me:secret").decode()
TOKEN = "Bearer t0ken"
LOGIN = Answer(
    status=401,
    headers={
        "WWW-Authenticate": 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
    },
    body=b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}',
)


def hub_answers(question: Question) -> Answer | None:
    """Docker Hub: a token for a user with a password, and then everything."""
    if question.path == "/token":
        known = question.headers.get("authorization") == USER
        return Answer(body=b'{"token": "t0ken"}') if known else Answer(status=401)
    return None if question.headers.get("authorization") == TOKEN else LOGIN


@attrs.frozen
class Sea:
    """A daemon between mirrors and Docker Hub."""

    daemon: Daemon
    hub: ScriptedRegistry
    hub_names: list[str]

    async def docker(self, *words: str, status: int | None = 0) -> Done:
        return await trio.to_thread.run_sync(partial(self.daemon.docker, *words, status=status))

    async def is_whole(self, name: str) -> bool:
        """Whether the image has come, with its last layer."""
        return "cargo" in (await self.docker("run", "--rm", name, "/bin/busybox", "ls")).out


@pytest.fixture
def image() -> Picture:
    return picture(
        tar_of(("bin/busybox", Path("/bin/busybox").read_bytes())),
        tar_of(("cargo", os.urandom(3_000_000))),
    )


@asynccontextmanager
async def sea(
    make: Callable[..., Daemon],
    image: Picture,
    tmp_path: Path,
    *mirrors: str,
    by_options: bool = False,
) -> AsyncIterator[Sea]:
    """A daemon with mirrors, of its configuration or of its options, whose user has logged in to Docker Hub."""
    async with scripted_registry(image, hub_answers) as hub, docker_hub(hub, tmp_path) as way:
        daemon = make()
        urls = [f"http://{mirror}" for mirror in mirrors]
        if by_options:
            daemon.options = tuple(word for url in urls for word in ("--registry-mirror", url))
        else:
            named = f"autostart = false\nregistry-mirrors = {json.dumps(urls)}"
            daemon.config.write_text(daemon.config.read_text().replace("autostart = false", named))
        auth = USER.removeprefix("Basic ")
        login = {"auths": {"https://index.docker.io/v1/": {"auth": auth}}}
        (daemon.folder / "config.json").write_text(json.dumps(login))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in way.environment.items():
                patch.setenv(name, value)
            await trio.to_thread.run_sync(daemon.start)
        try:
            yield Sea(daemon, hub, way.asked)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(daemon.close)


def saw_no_credentials(mirror: ScriptedRegistry) -> bool:
    assert mirror.asked
    return not any(
        name in question.headers
        for question in mirror.asked
        for name in ("authorization", "cookie", "x-registry-auth", "proxy-authorization")
    )


async def test_a_mirror_that_works_spares_docker_hub_and_sees_no_credentials(
    new_daemon: Callable[..., Daemon], image: Picture, tmp_path: Path
) -> None:
    async with (
        scripted_registry(image) as mirror,
        scripted_registry(image) as second,
        sea(new_daemon, image, tmp_path, mirror.address, second.address) as here,
    ):
        await here.docker("pull", "good:1")
        assert await here.is_whole("good:1")
        assert saw_no_credentials(mirror)
        assert second.asked == []
        assert here.hub.asked == []
        # What is pushed goes to Docker Hub itself, with the user's password, and not to a mirror.
        asked = len(mirror.asked)
        await here.docker("tag", "good:1", "me/good:1")
        await here.docker("push", "me/good:1", status=None)
        assert len(mirror.asked) == asked
        tokens = [q.headers["authorization"] for q in here.hub.asked if q.path == "/token"]
        assert set(tokens) == {USER}
        assert set(here.hub_names) <= {"registry-1.docker.io:443", "auth.docker.io:443"}


async def test_mirrors_that_are_down_or_have_nothing_cost_nothing_but_the_question(
    new_daemon: Callable[..., Daemon], image: Picture, tmp_path: Path
) -> None:
    def nothing(question: Question) -> Answer:
        return Answer(status=404, body=b'{"errors": [{"code": "NAME_UNKNOWN"}]}')

    down = f"127.0.0.1:{free_port()}"
    async with (
        scripted_registry(image, nothing) as empty,
        sea(new_daemon, image, tmp_path, down, empty.address, by_options=True) as here,
    ):
        await here.docker("pull", "good:1")
        assert await here.is_whole("good:1")
        assert saw_no_credentials(empty)
        assert {q.headers["authorization"] for q in here.hub.asked if q.path == "/token"} == {USER}
        layers = [q for q in here.hub.asked if "/blobs/" in q.path]
        assert len(layers) == 3
        assert {q.headers["authorization"] for q in layers} == {TOKEN}


async def test_a_mirror_that_breaks_in_the_middle_of_a_layer_is_relieved_by_docker_hub(
    new_daemon: Callable[..., Daemon], image: Picture, tmp_path: Path
) -> None:
    layer = image.layers[-1]

    def breaks(question: Question) -> Answer | None:
        if not question.path.endswith(sha256(layer)):
            return None
        return attrs.evolve(ranged(question, layer), cut_after=400_000)

    async with (
        scripted_registry(image, breaks) as mirror,
        sea(new_daemon, image, tmp_path, mirror.address) as here,
    ):
        await here.docker("pull", "good:1")
        assert await here.is_whole("good:1")
        assert saw_no_credentials(mirror)
        begun = [
            q.headers.get("range", "") for q in here.hub.asked if q.path.endswith(sha256(layer))
        ]
        assert begun[-1].startswith("bytes=")
        at = int(begun[-1].removeprefix("bytes=").rstrip("-"))
        assert 400_000 <= at < len(layer), "it goes on where the mirror has broken off"
        # Everything else came from the mirror.
        assert {q.path for q in here.hub.asked if "/blobs/" in q.path} == {
            f"/v2/library/good/blobs/{sha256(layer)}"
        }


async def test_a_mirror_that_lies_leaves_nothing_behind(
    new_daemon: Callable[..., Daemon], image: Picture, tmp_path: Path
) -> None:
    layer = image.layers[-1]

    def lies(question: Question) -> Answer | None:
        if not question.path.endswith(sha256(layer)):
            return None
        return ranged(question, layer[:-1] + bytes([layer[-1] ^ 1]))

    async with (
        scripted_registry(image, lies) as mirror,
        sea(new_daemon, image, tmp_path, mirror.address) as here,
    ):
        done = await here.docker("pull", "good:1", status=1)
        assert f"layer {sha256(layer)[7:19]} of good:1" in done.err
        assert here.daemon.images() == set()
        assert saw_no_credentials(mirror)


def with_users(question: Question) -> Answer | None:
    """A registry that lets in ``me`` only, and finds one repository."""
    if question.headers.get("authorization") != USER:
        return Answer(
            status=401,
            headers={"WWW-Authenticate": 'Basic realm="harbour"'},
            body=b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}',
        )
    if question.path == "/v1/search":
        found = {"name": "team/app", "description": "cargo of all kinds", "star_count": 3}
        return Answer(body=json.dumps({"results": [found]}).encode())
    return None


async def test_search_and_inspection_of_a_registry_with_users_take_the_callers_password(
    daemon: Daemon, image: Picture
) -> None:
    async with scripted_registry(image, with_users) as registry:

        async def docker(*words: str, status: int | None = 0) -> Done:
            return await trio.to_thread.run_sync(partial(daemon.docker, *words, status=status))

        def inspect(password: str) -> tuple[int, str]:
            said = {"username": "me", "password": password, "serveraddress": registry.address}
            auth = base64.urlsafe_b64encode(json.dumps(said).encode()).decode()
            with daemon.connect() as connection:
                headers = {"X-Registry-Auth": auth}
                connection.request(
                    "GET", f"/distribution/{registry.address}/app:1/json", headers=headers
                )
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

        refused = await docker("search", f"{registry.address}/app", status=None)
        assert refused.status == 1
        assert "cargo" not in refused.said
        status, said = await trio.to_thread.run_sync(inspect, "wrong")
        assert status in (401, 403)
        assert "message" in json.loads(said)
        await docker("login", "-u", "me", "-p", "secret", registry.address)
        try:
            assert "cargo of all kinds" in (await docker("search", f"{registry.address}/app")).out
            status, said = await trio.to_thread.run_sync(inspect, "secret")
            assert status == 200
            assert json.loads(said)["Descriptor"]["digest"] == image.digest
        finally:
            await docker("logout", registry.address)
        assert (await docker("search", f"{registry.address}/app", status=None)).status == 1
