"""What a container takes of others, without any of them running for real."""

import attrs
import pytest

from linkspan.core.engine.entry import Entry
from linkspan.core.engine.joining import shared_ipc
from linkspan.core.engine.linking import link_environment
from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.model.container import Container, ContainerSpec, ContainerState, ContainerStatus
from linkspan.sdk.model.network import Endpoint, EndpointSpec

RUNS = ContainerState(status=ContainerStatus.RUNNING, pid=1)
DB = Container(
    id="d" * 64,
    name="db",
    spec=ContainerSpec(image="db"),
    image_id="sha256:0",
    created_at="2026-01-01T00:00:00Z",
    env=("PATH=/bin", "USER=ana", "EMPTY="),
    exposed_ports=("53/udp", "8080/tcp", "80"),
    state=RUNS,
    endpoints=(Endpoint(id="e", network_id="n", network_name="bridge", ipv4_address="172.17.0.2"),),
)


def find(*containers: Container):
    known = {c.name: Entry(c) for c in containers} | {c.id: Entry(c) for c in containers}
    return known.get


def client(*links: str, mode: str = "default") -> Container:
    spec = ContainerSpec(image="app", network_mode=mode, networks={mode: EndpointSpec(links=links)})
    return attrs.evolve(DB, id="c" * 64, name="web", spec=spec, endpoints=())


def test_a_link_tells_the_ports_the_name_and_the_environment_of_its_target() -> None:
    assert link_environment(find(DB), client("/db:my-db")) == (
        "MY_DB_PORT=tcp://172.17.0.2:80",
        "MY_DB_PORT_80_TCP=tcp://172.17.0.2:80",
        "MY_DB_PORT_80_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_80_TCP_PORT=80",
        "MY_DB_PORT_80_TCP_PROTO=tcp",
        "MY_DB_PORT_8080_TCP=tcp://172.17.0.2:8080",
        "MY_DB_PORT_8080_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_8080_TCP_PORT=8080",
        "MY_DB_PORT_8080_TCP_PROTO=tcp",
        "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
        "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
        "MY_DB_PORT_53_UDP_PORT=53",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        "MY_DB_NAME=/web/my-db",
        "MY_DB_ENV_USER=ana",
        "MY_DB_ENV_EMPTY=",
    )


def test_a_link_tells_what_a_user_set_and_not_what_every_container_has() -> None:
    target = attrs.evolve(DB, env=("HOSTNAME=h", "TERM=xterm", "USER=ana"), hostname="h")
    told = link_environment(find(target), client("db"))
    assert [line for line in told if "_ENV_" in line] == ["DB_ENV_USER=ana"]
    chosen = attrs.evolve(target, spec=attrs.evolve(DB.spec, env=("HOSTNAME=h",)))
    assert "DB_ENV_HOSTNAME=h" in link_environment(find(chosen), client("db"))


def test_links_of_other_networks_are_names_and_no_more() -> None:
    assert link_environment(find(DB), client("db:x", mode="back")) == ()


def test_a_link_needs_a_target_that_runs() -> None:
    stopped = attrs.evolve(DB, state=ContainerState(status=ContainerStatus.EXITED))
    with pytest.raises(Conflict, match="Cannot link to a non running container: /db AS /web/x"):
        link_environment(find(stopped), client("db:x"))
    with pytest.raises(NotFound, match="No such container: gone"):
        link_environment(find(DB), client("gone"))


@pytest.mark.parametrize("mode", ["", "private", "none"])
def test_shared_memory_is_lent_only_by_who_says_so(mode: str) -> None:
    keeps = attrs.evolve(DB, spec=attrs.evolve(DB.spec, ipc_mode=mode))
    with pytest.raises(Conflict, match="non-shareable IPC"):
        shared_ipc(find(keeps), "container:db")
    lends = attrs.evolve(DB, spec=attrs.evolve(DB.spec, ipc_mode="shareable"))
    assert shared_ipc(find(lends), "container:db") == DB.id
    assert shared_ipc(find(), "host") == "host"
    assert shared_ipc(find(), "private") == ""
