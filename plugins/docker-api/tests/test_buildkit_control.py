import base64
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import orjson
import pytest
import trio
import trio.testing
from buildkit_client import Client, pair

from linkspan.plugins.docker_api.buildkit.definitions import definition_of
from linkspan.plugins.docker_api.buildkit.frontend import build_request, check_frontend
from linkspan.plugins.docker_api.buildkit.grpc import (
    NOT_FOUND,
    UNIMPLEMENTED,
    UNKNOWN,
    Call,
    GrpcError,
    call_once,
    calling,
)
from linkspan.plugins.docker_api.buildkit.http2 import Connection
from linkspan.plugins.docker_api.buildkit.wire import Message, message
from linkspan.sdk.build_client import ClientFolder
from linkspan.sdk.drivers.builder import CacheImport
from linkspan.sdk.errors import InvalidArgument, Unsupported
from linkspan.sdk.http import Hijack
from linkspan.sdk.model.container import Ulimit
from linkspan.sdk.testing.fakes.builder import FakeBuilder

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
UPGRADE = {"upgrade": "h2c"}


@attrs.define
class Buildx:
    """Does what buildx does."""

    connection: Connection
    session: str

    async def control(self, name: str, request: bytes = b"") -> Message:
        return Message(await call_once(self.connection, CONTROL + name, request))

    async def bridge(self, ref: str, name: str, request: bytes = b"") -> Message:
        metadata = [("buildkit-controlapi-buildid", ref)]
        async with calling(self.connection, BRIDGE + name, metadata) as call:
            await call.send(request)
            await call.end()
            return Message(await call.one())

    async def status(self, ref: str) -> list[str]:
        """Names of the vertices that are complete."""
        names = []
        async with calling(self.connection, CONTROL + "Status") as call:
            await call.send(message({1: ref}))
            await call.end()
            while found := await call.receive():
                for each in found:
                    vertices = [Message(data) for data in Message(each).all(1)]
                    names += [vertex.text(3) for vertex in vertices if vertex.data(6)]
        return names

    def solve_request(self, ref: str, kind: str = "moby", **values: str) -> bytes:
        exporter = message({1: kind, 2: values})
        return message({1: ref, 5: self.session, 13: [exporter]})

    async def build(
        self, frontend: Mapping[str, str], kind: str = "moby", **values: str
    ) -> tuple[dict[str, str], list[str]]:
        """Build as buildx does; what the exporter says, and the names of the vertices."""
        ref = uuid.uuid4().hex
        names: list[str] = []
        said: dict[str, str] = {}
        errors: list[GrpcError] = []

        async def watch() -> None:
            names.extend(await self.status(ref))

        async def solve() -> None:
            try:
                answer = await self.control("Solve", self.solve_request(ref, kind, **values))
                said.update(answer.text_map(1))
            except GrpcError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(solve)
            await self.run_frontend(ref, frontend)
        if errors:
            raise errors[0]
        return said, names

    async def run_frontend(self, ref: str, frontend: Mapping[str, str]) -> Message:
        """What the client runs itself: it says what it wants, and hands the result on."""
        request = message({2: "dockerfile.v0", 3: frontend})
        try:
            await self.bridge(ref, "Ping")
            answer = await self.bridge(ref, "Solve", request)
        except GrpcError as error:
            status = message({1: error.status, 2: error.message})
            await self.bridge(ref, "Return", message({2: status}))
            return Message(b"")
        await self.bridge(ref, "Return", message({1: answer.data(3)}))
        return answer


@pytest.fixture
async def builder(api) -> FakeBuilder:
    found = FakeBuilder(host=api.host)
    api.host.drivers["builder", ""] = found
    return found


@asynccontextmanager
async def connected(api, client: Client) -> AsyncIterator[Buildx]:
    near, far = pair()
    session = await api.answer("POST", "/session", b"", client.headers("s1"))
    control = await api.answer("POST", "/grpc", b"", UPGRADE)
    assert isinstance(session, Hijack)
    assert isinstance(control, Hijack)
    grpc_near, grpc_far = pair()
    connection = Connection(grpc_far, is_client=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run, near)
        nursery.start_soon(client.connection(far).run)
        nursery.start_soon(control.run, grpc_near)
        await nursery.start(connection.run)
        yield Buildx(connection, "s1")
        nursery.cancel_scope.cancel()


FILES = {"Dockerfile": b"FROM scratch\nLABEL a=1\n"}


async def test_buildx_builds_an_image_and_gives_it_names(api, builder) -> None:
    async with connected(api, Client(FILES)) as buildx:
        said, names = await buildx.build({"label:x": "y"}, name="made,made:2")
    image = (await api.ask("GET", "/images/made:2/json")).json
    assert said == {
        "containerimage.config.digest": image["Id"],
        "containerimage.digest": image["Id"],
        "image.name": "docker.io/library/made,docker.io/library/made:2",
    }
    assert names == ["exporting to image"]
    (asked,) = builder.builds
    assert asked.labels == {"x": "y"}
    assert asked.client is not None


async def test_a_session_may_come_inside_of_a_call(api, builder) -> None:
    """As the one that bake opens for what several of its builds have."""
    client = Client(FILES)
    async with connected(api, Client({})) as buildx, trio.open_nursery() as nursery:
        near, far = pair()
        headers = [(name, value) for name, value in client.headers("shared").items()]

        async def to_client(call: Call) -> None:
            while found := await call.receive():
                await near.send(*(Message(each).data(1) for each in found))

        async def carry() -> None:
            async with calling(buildx.connection, CONTROL + "Session", headers) as call:
                nursery.start_soon(to_client, call)
                while data := await near.receive():
                    await call.send(message({1: data}))

        nursery.start_soon(carry)
        nursery.start_soon(client.connection(far).run)
        shared = Buildx(buildx.connection, "shared")
        said, _ = await shared.build({}, name="made:1")
        nursery.cancel_scope.cancel()
    assert said["image.name"] == "docker.io/library/made:1"
    assert client.asked


async def test_a_session_inside_of_a_call_ends_with_it(api, builder, autojump_clock) -> None:
    headers = list(Client(FILES).headers("shared").items())
    async with connected(api, Client({})) as buildx:
        async with calling(buildx.connection, CONTROL + "Session", headers) as call:
            assert await call.receive(), "the session's own connection has begun"
            asked = Buildx(buildx.connection, "shared").solve_request("one")
            async with calling(buildx.connection, CONTROL + "Solve") as solve:
                await solve.send(asked)
                await solve.end()
                await trio.sleep(60)  # it waits for its frontend: the session is there
            with pytest.raises(GrpcError, match="exists already"):
                async with calling(buildx.connection, CONTROL + "Session", headers) as again:
                    await again.receive()
        with pytest.raises(GrpcError, match="no active session for shared"):
            await buildx.control("Solve", Buildx(buildx.connection, "shared").solve_request("two"))


async def test_a_failure_reaches_both_calls(api, builder) -> None:
    async with connected(api, Client({"Dockerfile": b"FROM scratch\nRUN exit 3\n"})) as buildx:
        with pytest.raises(GrpcError) as caught:
            await buildx.build({})
        assert caught.value.status == UNKNOWN
        with pytest.raises(GrpcError, match="Cannot locate specified Dockerfile: none"):
            await buildx.build({"filename": "none"})
        with pytest.raises(GrpcError, match="one platform is built at a time"):
            await buildx.build({"platform": "linux/amd64,linux/arm64"})
        with pytest.raises(GrpcError, match="exporter 'oci' could not be found"):
            await buildx.control("Solve", buildx.solve_request("r", "oci"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {9: ["network.host", "security.insecure"]},
            "entitlement security.insecure is not allowed",
        ),
        ({12: message({1: 1})}, "policies for the sources"),
        ({15: "s"}, "policies for the sources"),
    ],
)
async def test_what_a_build_may_not_is_refused_before_it(api, builder, asked, words) -> None:
    async with connected(api, Client(FILES)) as buildx:
        request = buildx.solve_request("r") + message(asked)
        with pytest.raises(GrpcError, match=words):
            await buildx.control("Solve", request)
    assert builder.builds == []


async def test_a_file_is_checked_without_a_build(api, builder) -> None:
    client = Client({"Dockerfile": b"FROM scratch\nlabel a=1\n"})
    async with connected(api, client) as buildx, trio.open_nursery() as nursery:
        nursery.start_soon(buildx.control, "Solve", buildx.solve_request("r"))
        answer = await buildx.run_frontend("r", {"requestid": "frontend.lint"})
        metadata = Message(answer.data(3)).text_map(10)
        assert metadata["result.statuscode"] == "1"
        found = orjson.loads(metadata["result.json"])
        (warning,) = found["warnings"]
        assert warning["ruleName"] == "ConsistentInstructionCasing"
        assert warning["url"].endswith("/consistent-instruction-casing/")
        assert warning["location"]["ranges"][0]["start"]["line"] == 2
        assert base64.b64decode(found["sources"][0]["data"]) == b""
    assert builder.builds == []


async def test_what_is_not_there_says_so(api, builder, autojump_clock) -> None:
    async with connected(api, Client(FILES)) as buildx:
        for call, status in (
            (buildx.control("UpdateBuildHistory"), UNIMPLEMENTED),
            (buildx.control("Solve", message({1: "a", 5: "none"})), NOT_FOUND),
            (buildx.bridge("none", "Ping"), NOT_FOUND),
            (buildx.status("none"), NOT_FOUND),
            (buildx.control("Solve", b"\x08"), 3),
        ):
            with pytest.raises(GrpcError) as caught:
                await call
            assert caught.value.status == status
    with pytest.raises(Unsupported):
        check_frontend("gateway.v0", {"source": "other/frontend:1"})
    check_frontend("gateway.v0", {"source": "docker/dockerfile:1.7"})
    reply = await api.ask("POST", "/grpc")
    assert (reply.status, reply.message) == (500, "no upgrade proto in request")


async def test_the_daemon_says_who_it_is_and_what_its_cache_holds(api, builder) -> None:
    builder.steps.update({"aa1", "bb1"})
    async with connected(api, Client()) as buildx:
        info = Message((await buildx.control("Info")).data(1))
        assert info.text(1) == "linkspan"
        worker = Message((await buildx.control("ListWorkers")).data(1))
        platform = Message(worker.data(3))
        assert platform.text(2) == "linux"
        usage = [Message(each) for each in (await buildx.control("DiskUsage")).all(1)]
        assert [(each.text(1), each.number(4), each.text(10)) for each in usage] == [
            ("aa1", 1, "regular"),
            ("bb1", 1, "regular"),
        ]
        async with calling(buildx.connection, CONTROL + "Prune") as call:
            await call.send(message({2: 1}))
            await call.end()
            gone: list[bytes] = []
            while more := await call.receive():
                gone += more
        async with calling(buildx.connection, CONTROL + "ListenBuildHistory") as call:
            await call.send(message({3: 1}))
            await call.end()
            assert await call.receive() == []
    assert [Message(each).text(1) for each in gone] == ["aa1", "bb1"]
    assert builder.steps == set()


class SlowBuilder(FakeBuilder):
    """Its builds do not end."""

    ended = False

    async def build(self, request, progress):
        self.builds.append(request)
        try:
            await trio.sleep_forever()
        finally:
            self.ended = True


async def test_a_build_ends_with_its_client(api) -> None:
    api.host.drivers["builder", ""] = builder = SlowBuilder(host=api.host)
    async with connected(api, Client()) as buildx, trio.open_nursery() as nursery:
        nursery.start_soon(buildx.control, "Solve", buildx.solve_request("r"))
        nursery.start_soon(buildx.run_frontend, "r", {})
        while not builder.builds:
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    while not builder.ended:
        await trio.testing.wait_all_tasks_blocked()


def test_options_of_the_frontend_become_a_request() -> None:
    entry = Message(message({1: "registry", 2: {"ref": "c:2"}}))
    request = build_request(
        {
            "filename": "F",
            "target": "t",
            "build-arg:A": "1",
            "platform": "linux/arm64",
            "no-cache": "one,two",
            "image-resolve-mode": "pull",
            "force-network-mode": "host",
            "add-hosts": "a=1.2.3.4,b=::1",
            "cgroup-parent": "/g",
            "shm-size": "1024",
            "ulimit": "nofile=10:20,nproc=5",
            "context:base": "docker-image://b:1",
            "context:lib": "local:lib",
            "cache-imports": '[{"Type":"registry","Attrs":{"ref":"c:1"}}]',
        },
        [entry],
        {},
    )
    assert (request.file, request.target, request.platform) == ("F", "t", "linux/arm64")
    assert request.args == {"A": "1"}
    assert (request.no_cache, request.no_cache_stages, request.pull) == (
        False,
        ("one", "two"),
        True,
    )
    assert request.network_mode == "host"
    assert request.extra_hosts == ("a:1.2.3.4", "b:::1")
    assert request.resources.cgroup_parent == "/g"
    assert request.resources.ulimits == (
        Ulimit(name="nofile", soft=10, hard=20),
        Ulimit(name="nproc", soft=5, hard=5),
    )
    assert request.shm_size_bytes == 1024
    assert request.contexts == {"base": "b:1", "lib": ClientFolder("lib")}
    assert request.cache_from == (CacheImport(reference="c:1"), CacheImport(reference="c:2"))
    assert build_request({"no-cache": ""}, [], {}).no_cache
    assert build_request({"context": "https://h/x.git"}, [], {}).remote == "https://h/x.git"
    assert build_request({"context": "http://buildkit-session/x"}, [], {}).remote == ""


def test_a_result_is_a_context_of_another_build() -> None:
    definition = definition_of("sha256:abc")
    request = build_request({"context:base": "input:base"}, [], {"base": definition})
    assert request.contexts == {"base": "sha256:abc"}
    other = message({1: [message({3: message({1: "git://x"})})]})
    for wrong in (b"", other, definition + other):
        with pytest.raises(Unsupported):
            build_request({"context:base": "input:base"}, [], {"base": wrong})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"force-network-mode": "mine"}, InvalidArgument),
        ({"ulimit": "nofile=x"}, InvalidArgument),
        ({"shm-size": "much"}, InvalidArgument),
        ({"cache-imports": "{"}, InvalidArgument),
        ({"cache-imports": '[{"Type":"gha","Attrs":{}}]'}, Unsupported),
        ({"context:x": "input:x"}, Unsupported),
        ({"attest:sbom": ""}, Unsupported),
        ({"attest:provenance": "mode=max"}, Unsupported),
        ({"hostname": "h"}, Unsupported),
        ({"contextkey": "other"}, Unsupported),
    ],
)
def test_options_that_are_wrong_or_not_there_are_refused(options, error) -> None:
    with pytest.raises(error):
        build_request(options, [], {})


def test_options_that_clients_send_unasked_and_that_ask_for_nothing_are_taken() -> None:
    taken = build_request(
        {
            **{"contextkey": "context", "dockerfilekey": "dockerfile", "multi-platform": "true"},
            **{"frontend.caps": "moby.buildkit.frontend.contexts+forward", "cmdline": "x"},
            **{
                "vcs:source": "https://h/x.git",
                "vcs:revision": "1",
                "local-sessionid:context": "s",
            },
            **{"attest:provenance": "mode=min,inline-only=true", "attest:sbom": "disabled=true"},
        },
        [],
        {},
    )
    assert taken == build_request({}, [], {})
