import base64
import io
import tarfile
from urllib.parse import quote

import pytest
import trio
import trio.testing
from buildkit_client import ERROR, Client, connected, pair

from linkspan.plugins.docker_api.buildkit.grpc import Call, GrpcError
from linkspan.plugins.docker_api.buildkit.session import Session, Sessions
from linkspan.plugins.docker_api.buildkit.trace import Trace
from linkspan.plugins.docker_api.buildkit.wire import Message, message
from linkspan.sdk.errors import InvalidArgument, NotFound
from linkspan.sdk.http import Hijack
from linkspan.sdk.model.image import Credentials
from linkspan.sdk.progress import Progress
from linkspan.sdk.testing.fakes.build_client import received_files
from linkspan.sdk.testing.fakes.builder import FakeBuilder


def session(connection: object, client: Client) -> Session:
    return Session(connection, "key", frozenset(client.methods))


async def test_a_folder_arrives_with_all_its_files() -> None:
    files = {f"d{n % 5}/f{n}": bytes([n % 256]) * (n * 997 % 70_000) for n in range(300)}
    client = Client(files)
    async with connected(client) as connection:
        assert await received_files(session(connection, client), "context") == files
    assert client.asked[0]["dir-name"] == "context"


async def test_nobody_waits_for_a_client_to_agree_that_all_has_come(autojump_clock) -> None:
    class Slow(Client):
        async def diff_copy(self, call: Call) -> None:
            await Client.diff_copy(self, call)
            await trio.sleep(1000)

    client = Slow({"a": b"1"})
    async with connected(client) as connection:
        for _ in range(2):
            assert await received_files(session(connection, client), "context") == client.files
        assert trio.current_time() < 1000
        # It is not waited for for ever, either.
        await trio.sleep(100)
        assert not connection._streams


async def test_patterns_and_paths_reach_the_client() -> None:
    client = Client({"a": b"1"})
    async with (
        connected(client) as connection,
        session(connection, client).folder(
            "context", paths=["a", "b c"], exclude=["*.o", "!ünïcode"]
        ) as folder,
    ):
        await folder.entries()
    assert client.asked[0]["followpaths"] == "a,b c"
    assert client.asked[0]["exclude-patterns"] == "%2A.o,%21%C3%BCn%C3%AFcode"
    assert client.asked[0]["exclude-patterns-encoded"] == "1"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (message({1: ERROR, 4: "open x: permission denied"}), "open x: permission denied"),
        (message({1: 7}), "a packet of kind 7"),
        (b"\x0a\xff", "cannot be read"),
        (b"", "ended before"),
    ],
)
async def test_a_folder_that_cannot_be_read_is_an_error(fault: bytes, said: str) -> None:
    client = Client({"a": b"1"}, fault=[fault] if fault else [], faulty=True)
    async with connected(client) as connection:
        with pytest.raises(InvalidArgument, match=said):
            await received_files(session(connection, client), "context")


async def test_secrets_and_passwords_are_asked_for() -> None:
    client = Client(
        secrets={"tok": b"hunter2"},
        logins={"registry-1.docker.io": ("u", "p"), "h:5000": ("", "identity")},
    )
    async with connected(client) as connection:
        asked = session(connection, client)
        assert await asked.secret("tok") == b"hunter2"
        assert await asked.secret("other") is None
        assert await asked.credentials("docker.io") == Credentials(username="u", password="p")
        assert await asked.credentials("h:5000") == Credentials(identity_token="identity")
        bare = Session(connection, "", frozenset())
        assert await bare.secret("tok") is None
        assert await bare.credentials("docker.io") == Credentials()


async def test_connections_reach_an_agent_of_the_client() -> None:
    client = Client()
    async with connected(client) as connection:
        asked = session(connection, client)
        assert await asked.has_agent("default")
        assert not await asked.has_agent("other")
        assert not await Session(connection, "", frozenset()).has_agent("default")
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.forward, "default", near)
            await far.send_all(b"sign")
            assert await far.receive_some() == b"default sign"
            await far.send_all(b"bye")
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.forward, "default", near)
            await far.send_eof()


async def test_a_session_is_there_while_its_connection_is(autojump_clock) -> None:
    sessions, client = Sessions(), Client({"a": b"1"})
    near, far = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.run, near, client.headers("one"))
        nursery.start_soon(client.connection(far).run)
        found = await sessions.get("one")
        assert await received_files(found, "context") == {"a": b"1"}
        await far.close()
        await found.gone.wait()
    with pytest.raises(NotFound, match="no active session for one"):
        await sessions.get("one")
    with pytest.raises(InvalidArgument):
        await sessions.run(near, {})
    with pytest.raises(GrpcError):
        await found.secret("x")


@pytest.fixture
async def builder(api) -> FakeBuilder:
    found = FakeBuilder(host=api.host)
    api.host.drivers["builder", ""] = found
    return found


async def open_session(api, client: Client, identity: str = "s1"):
    near, far = pair()
    answer = await api.answer("POST", "/session", b"", client.headers(identity))
    assert isinstance(answer, Hijack)
    assert answer.upgrade == "h2c"
    api.nursery.start_soon(answer.run, near)
    api.nursery.start_soon(client.connection(far).run)
    return far


async def test_a_build_asks_its_session_for_its_files(api, builder) -> None:
    client = Client({"Dockerfile": b"FROM scratch\nLABEL a=1\n", "x": b"y"})
    await open_session(api, client)
    reply = await api.ask(
        "POST", "/build?version=2&remote=client-session&session=s1&buildid=b1&t=made:1"
    )
    *traces, last = reply.lines
    image = (await api.ask("GET", "/images/made:1/json")).json
    assert last == {"id": "moby.image.id", "aux": {"ID": image["Id"]}}
    (export,) = [
        vertex
        for line in traces
        for data in Message(base64.b64decode(line["aux"])).all(1)
        if (vertex := Message(data)).text(3) == "exporting to image"
    ]
    assert export.data(6)


async def test_a_quiet_build_says_its_image_only(api, builder) -> None:
    await open_session(api, Client({"Dockerfile": b"FROM scratch\n"}))
    reply = await api.ask("POST", "/build?version=2&session=s1&buildid=b&q=1&t=made:1")
    image = (await api.ask("GET", "/images/made:1/json")).json
    assert reply.lines == [{"stream": image["Id"] + "\n"}]


async def test_a_failed_build_ends_with_its_error(api, builder) -> None:
    await open_session(api, Client({"Dockerfile": b"FROM scratch\nRUN exit 3\n"}))
    reply = await api.ask("POST", "/build?version=2&session=s1&buildid=b")
    assert reply.lines[-1]["errorDetail"]["message"]
    reply = await api.ask("POST", "/build?version=2&session=s1&buildid=b&dockerfile=none")
    assert reply.lines[-1]["error"] == "Cannot locate specified Dockerfile: none"


async def test_a_result_is_written_into_the_clients_folder(api, builder) -> None:
    big = bytes(range(256)) * 2000
    files = {"Dockerfile": b"FROM scratch\nCOPY big b\nCOPY x y\n", "big": big, "x": b""}
    client = Client(files)
    await open_session(api, client)
    before = (await api.ask("GET", "/images/json?all=1")).json
    outputs = quote('[{"Type":"local","Attrs":{}}]')
    reply = await api.ask("POST", f"/build?version=2&session=s1&buildid=b&outputs={outputs}")
    assert client.taken == {"b": big, "y": b""}
    assert all(line["id"] == "moby.buildkit.trace" for line in reply.lines)
    assert (await api.ask("GET", "/images/json?all=1")).json == before
    client.takes = "tar"
    outputs = quote('[{"Type":"tar","Attrs":{}}]')
    await api.ask("POST", f"/build?version=2&session=s1&buildid=b&outputs={outputs}")
    with tarfile.open(fileobj=io.BytesIO(client.tar)) as tar:
        assert tar.getnames() == ["b", "y"]
        assert tar.extractfile("b").read() == big
    for wrong in ('[{"Type":"oci"}]', '[{"Type":"tar"},{"Type":"local"}]'):
        reply = await api.ask("POST", f"/build?version=2&session=s1&outputs={quote(wrong)}")
        assert reply.status == 400


async def test_a_build_without_a_session_is_refused(api, builder, autojump_clock) -> None:
    reply = await api.ask("POST", "/build?version=2&buildid=b")
    assert (reply.status, reply.message) == (400, "a build by BuildKit's protocol needs a session")
    reply = await api.ask("POST", "/build?version=2&session=none&buildid=b")
    assert reply.status == 404
    assert (await api.ask("POST", "/session")).status == 400
    assert (await api.ask("POST", "/build/cancel")).status == 400
    assert (await api.ask("POST", "/build/cancel?id=gone")).status == 200


class SlowBuilder(FakeBuilder):
    """Its builds do not end."""

    async def build(self, request, progress):
        self.builds.append(request)
        await trio.sleep_forever()


async def test_a_build_is_cancelled(api) -> None:
    api.host.drivers["builder", ""] = builder = SlowBuilder(host=api.host)
    await open_session(api, Client())
    writer = await api.watch("POST", "/build?version=2&session=s1&buildid=b7")
    while not builder.builds:
        await trio.testing.wait_all_tasks_blocked()
    await api.ask("POST", "/build/cancel?id=b7")
    while b"context canceled" not in writer.data:
        await trio.testing.wait_all_tasks_blocked()


async def test_a_build_ends_with_its_session(api) -> None:
    api.host.drivers["builder", ""] = builder = SlowBuilder(host=api.host)
    far = await open_session(api, Client())
    writer = await api.watch("POST", "/build?version=2&session=s1&buildid=b7")
    while not builder.builds:
        await trio.testing.wait_all_tasks_blocked()
    await far.close()
    while b"session has ended" not in writer.data:
        await trio.testing.wait_all_tasks_blocked()


def vertices(trace: Trace) -> list[tuple[str, bool, bool, str]]:
    """Name, whether it is cached and done, and its error."""
    return [
        (each.text(3), bool(each.number(4)), bool(each.data(6)), each.text(7))
        for each in map(Message, Message(trace.message()).all(1))
    ]


def test_steps_become_vertices() -> None:
    trace = Trace("b")

    def say(**aux: object) -> None:
        trace.take(Progress(aux=aux))

    say(work={"id": 1, "name": "[internal] load x", "state": "begun"})
    say(
        work={
            "id": 1,
            "state": "part",
            "part": {"text": "t:", "current": 7, "total": 0, "done": True},
        }
    )
    say(work={"id": 1, "state": "done", "seconds": 0.1, "error": ""})
    say(step={"number": 0, "total": 3, "text": "FROM x", "name": "[1/3] FROM x", "state": "begun"})
    say(work={"id": 2, "name": "[internal] load metadata for x", "state": "begun"})
    trace.take(Progress(status="Pulling from x", id="latest"))
    trace.take(Progress(status="Downloading", id="abc", current=1, total=2))
    say(work={"id": 2, "state": "done", "seconds": 0.1, "error": ""})
    say(step={"number": 0, "state": "done", "seconds": 0.1})
    say(step={"number": 1, "total": 3, "text": "ENV", "name": "", "state": "begun"})
    say(step={"number": 2, "total": 3, "text": "RUN", "name": "[1/2] RUN", "state": "begun"})
    say(log={"number": 2, "text": "\x1b[91moh\x1b[0m"})
    say(step={"number": 2, "state": "cached", "seconds": 0.0})
    say(step={"number": 3, "total": 3, "text": "RUN", "name": "[2/2] RUN", "state": "begun"})
    new = Message(trace.message())
    assert [Message(data).text(3) for data in new.all(1)] == [
        "[internal] load x",
        "[internal] load metadata for x",
        "[1/3] FROM x",
        "[1/2] RUN",
        "[2/2] RUN",
    ]
    statuses = [(each.text(1), each.number(4)) for each in map(Message, new.all(2))]
    assert statuses == [("t:", 7), ("abc", 1)]
    (log,) = map(Message, new.all(3))
    assert (log.number(3), log.text(4)) == (2, "oh")
    assert trace.message() == b""
    say(step={"number": 3, "state": "failed", "seconds": 0.0})
    trace.failed("it broke")
    assert vertices(trace) == [("[2/2] RUN", False, True, "it broke")]
