"""The contract of role ``network``, sentence by sentence.

Subclass ``NetworkConformance`` and set ``driver``; sentences about a capability that the driver does
not declare are skipped, save that its methods then raise ``Unsupported``. A driver that changes the
machine's network is best run in a network namespace of the test's own::

    @pytest.mark.system
    class TestBridge(NetworkConformance):
        driver = BridgeNetwork

The kit looks at addresses, ports and files, not at packets: that a published port is reachable is for
the driver's own tests to show.
"""

import secrets
from collections.abc import AsyncIterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import trio

from linkspan.sdk.drivers.network import AttachRequest, NetworkCap, NetworkDriver, Sandbox
from linkspan.sdk.errors import (
    Conflict,
    InvalidArgument,
    LinkspanError,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)
from linkspan.sdk.model.network import (
    AddressPool,
    Backend,
    EndpointSpec,
    Network,
    NetworkSpec,
    PortBinding,
)
from linkspan.sdk.testing.host import FakeHost

_TAKEN = {"address", "port", "protocol", "holder"}


class NetworkBench:
    """A network driver with shortcuts; what it makes is removed at the end of the test."""

    def __init__(self, driver: NetworkDriver[Any]) -> None:
        self.driver = driver
        self.networks: dict[str, Network] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self.balanced: list[PortBinding] = []

    async def network(self, *, subnet: str = "", **spec: Any) -> Network:
        """Make a network."""
        if subnet:
            spec["pools"] = (AddressPool(subnet=subnet),)
        spec.setdefault("name", f"kit-{secrets.token_hex(3)}")
        wanted = Network(
            id=secrets.token_hex(32),
            spec=NetworkSpec(**spec),
            created_at="2024-01-01T00:00:00Z",
        )
        made = await self.driver.create_network(wanted)
        self.networks[made.id] = made
        return made

    def request(
        self, *networks: Network | tuple[Network, EndpointSpec], **changes: Any
    ) -> AttachRequest:
        """A request with a fresh id."""
        container_id = changes.pop("container_id", None) or secrets.token_hex(32)
        changes.setdefault("name", f"kit-{container_id[:6]}")
        return AttachRequest(
            container_id=container_id,
            hostname=container_id[:12],
            networks=tuple(
                each if isinstance(each, tuple) else (each, EndpointSpec()) for each in networks
            ),
            **changes,
        )

    async def attach(
        self, *networks: Network | tuple[Network, EndpointSpec], **changes: Any
    ) -> Sandbox:
        """Make a sandbox."""
        sandbox = await self.driver.attach(self.request(*networks, **changes))
        self.sandboxes[sandbox.container_id] = sandbox
        return sandbox

    async def detach(self, sandbox: Sandbox) -> None:
        """End a sandbox."""
        await self.driver.detach(sandbox.container_id)
        del self.sandboxes[sandbox.container_id]

    async def balance(self, port: PortBinding, *backends: Backend) -> PortBinding:
        """Balance a port."""
        made = await self.driver.balance(port, backends)
        self.balanced.append(made)
        return made

    async def clear(self) -> None:
        """Remove all that was made."""
        for port in self.balanced:
            await self.driver.unbalance(port)
        for container_id in list(self.sandboxes):
            await self.driver.detach(container_id)
        for network in self.networks.values():
            await self.driver.remove_network(network)


def fixed(address: str) -> EndpointSpec:
    """An endpoint with an address of its own."""
    return EndpointSpec(ipv4_address=address)


def _read(files: Mapping[str, str]) -> dict[str, str]:
    return {name: Path(path).read_text() for name, path in files.items()}


class NetworkConformance:
    """See the module."""

    driver: ClassVar[type[NetworkDriver[Any]]]

    @pytest.fixture
    def config(self) -> Any:
        return self.driver.config_type()

    @pytest.fixture
    async def bench(self, config: Any, fake_host: FakeHost) -> AsyncIterator[NetworkBench]:
        async with self.driver.open(config, fake_host) as driver:
            await driver.recover()
            bench = NetworkBench(driver)
            try:
                yield bench
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(20):
                    await bench.clear()

    # --- networks

    async def test_a_network_gets_a_subnet_and_a_gateway_in_it(self, bench: NetworkBench) -> None:
        network = await bench.network()
        (pool,) = network.spec.pools
        assert IPv4Address(pool.gateway) in IPv4Network(pool.subnet)

    async def test_chosen_subnets_do_not_overlap(self, bench: NetworkBench) -> None:
        first, second = await bench.network(), await bench.network()
        one, other = (IPv4Network(n.spec.pools[0].subnet) for n in (first, second))
        assert not one.overlaps(other)

    async def test_networks_made_at_once_do_not_overlap(self, bench: NetworkBench) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(bench.network)
        assert len({n.spec.pools[0].subnet for n in bench.networks.values()}) == 4

    async def test_a_given_subnet_and_gateway_are_kept(self, bench: NetworkBench) -> None:
        wanted = AddressPool(subnet="10.77.0.0/24", gateway="10.77.0.9")
        network = await bench.network(pools=(wanted,))
        assert network.spec.pools[0].subnet == "10.77.0.0/24"
        assert network.spec.pools[0].gateway == "10.77.0.9"

    async def test_a_subnet_that_overlaps_another_network_is_refused(
        self, bench: NetworkBench
    ) -> None:
        await bench.network(subnet="10.77.0.0/24")
        with pytest.raises(PermissionDenied) as caught:
            await bench.network(subnet="10.77.0.128/25")
        assert caught.value.code == "pool_overlaps"

    @pytest.mark.parametrize("subnet", ["10.77.0.1/24", "10.77.0.0/40", "ten", "10.77.0.0/24/1"])
    async def test_a_subnet_that_is_none_is_refused(self, bench: NetworkBench, subnet: str) -> None:
        with pytest.raises(InvalidArgument):
            await bench.network(subnet=subnet)

    async def test_a_gateway_outside_the_subnet_is_refused(self, bench: NetworkBench) -> None:
        with pytest.raises(InvalidArgument):
            await bench.network(pools=(AddressPool(subnet="10.77.0.0/24", gateway="10.78.0.1"),))

    async def test_a_removed_network_frees_its_subnet_and_is_removed_only_once(
        self, bench: NetworkBench
    ) -> None:
        network = await bench.network(subnet="10.77.0.0/24")
        await bench.driver.remove_network(network)
        await bench.driver.remove_network(network)
        await bench.network(subnet="10.77.0.0/24")

    # --- sandboxes

    async def test_a_sandbox_has_an_address_of_the_network(self, bench: NetworkBench) -> None:
        network = await bench.network(subnet="10.77.0.0/24")
        sandbox = await bench.attach(network)
        (endpoint,) = sandbox.endpoints
        assert endpoint.network_id == network.id
        assert endpoint.network_name == network.name
        assert IPv4Address(endpoint.ipv4_address) in IPv4Network("10.77.0.0/24")
        assert endpoint.ipv4_prefix == 24
        assert endpoint.ipv4_address != endpoint.gateway == network.spec.pools[0].gateway
        assert endpoint.interface == "eth0"
        assert len(endpoint.mac_address.split(":")) == 6
        assert sandbox.namespace

    async def test_the_files_of_a_sandbox_name_it(self, bench: NetworkBench) -> None:
        network = await bench.network()
        sandbox = await bench.attach(network, extra_hosts=("registry:10.0.0.9",))
        assert set(sandbox.files) == {"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}
        text = _read(sandbox.files)
        lines = [line.split() for line in text["/etc/hosts"].splitlines()]
        hostname = sandbox.container_id[:12]
        assert [sandbox.endpoints[0].ipv4_address, hostname] in lines
        assert ["10.0.0.9", "registry"] in lines
        assert text["/etc/hostname"] == f"{hostname}\n"
        assert "nameserver" in text["/etc/resolv.conf"]

    async def test_sandboxes_have_addresses_of_their_own(self, bench: NetworkBench) -> None:
        network = await bench.network()
        sandboxes = [await bench.attach(network) for _ in range(3)]
        assert len({each.endpoints[0].ipv4_address for each in sandboxes}) == 3
        assert len({each.namespace for each in sandboxes}) == 3

    async def test_sandboxes_made_at_once_have_addresses_of_their_own(
        self, bench: NetworkBench
    ) -> None:
        network = await bench.network()
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(bench.attach, network)
        found = {each.endpoints[0].ipv4_address for each in bench.sandboxes.values()}
        assert len(found) == 6

    async def test_a_second_sandbox_of_a_container_is_refused(self, bench: NetworkBench) -> None:
        network = await bench.network()
        sandbox = await bench.attach(network)
        with pytest.raises(Conflict):
            await bench.driver.attach(bench.request(network, container_id=sandbox.container_id))

    async def test_a_fixed_address_is_kept_and_had_by_one_only(self, bench: NetworkBench) -> None:
        network = await bench.network(subnet="10.77.0.0/24")
        sandbox = await bench.attach((network, fixed("10.77.0.77")))
        assert sandbox.endpoints[0].ipv4_address == "10.77.0.77"
        with pytest.raises(Conflict) as caught:
            await bench.attach((network, fixed("10.77.0.77")))
        assert caught.value.code == "address_taken"

    async def test_a_fixed_address_is_free_again_at_once(self, bench: NetworkBench) -> None:
        network = await bench.network(subnet="10.77.0.0/24")
        for _ in range(2):
            await bench.detach(await bench.attach((network, fixed("10.77.0.77"))))

    @pytest.mark.parametrize("address", ["10.78.0.5", "10.77.0.1", "ten"])
    async def test_a_fixed_address_that_cannot_be_is_refused(
        self, bench: NetworkBench, address: str
    ) -> None:
        network = await bench.network(subnet="10.77.0.0/24")
        with pytest.raises(InvalidArgument):
            await bench.attach((network, fixed(address)))

    async def test_a_full_network_says_so_until_somebody_leaves(self, bench: NetworkBench) -> None:
        pool = AddressPool(subnet="10.77.0.0/29", auxiliary={"router": "10.77.0.4"})
        network = await bench.network(pools=(pool,))
        sandboxes = [await bench.attach(network) for _ in range(4)]
        assert "10.77.0.4" not in {each.endpoints[0].ipv4_address for each in sandboxes}
        with pytest.raises(Unavailable) as caught:
            await bench.attach(network)
        assert caught.value.code == "addresses_exhausted"
        await bench.detach(sandboxes[0])
        await bench.attach(network)

    async def test_an_internal_network_leads_nowhere(self, bench: NetworkBench) -> None:
        network = await bench.network(internal=True)
        sandbox = await bench.attach(network, ports=(PortBinding(container_port=80),))
        assert sandbox.endpoints[0].gateway == ""
        assert sandbox.ports == ()

    async def test_detaching_is_silent_when_there_is_nothing(self, bench: NetworkBench) -> None:
        network = await bench.network()
        sandbox = await bench.attach(network)
        await bench.driver.detach(sandbox.container_id)
        await bench.driver.detach(sandbox.container_id)
        await bench.driver.detach(secrets.token_hex(32))

    async def test_a_cancelled_attach_leaves_nothing(self, bench: NetworkBench) -> None:
        network = await bench.network(subnet="10.77.0.0/29")
        request = bench.request(network)
        with trio.CancelScope() as scope:
            scope.cancel()
            await bench.driver.attach(request)
        assert scope.cancelled_caught
        await bench.attach(network, container_id=request.container_id)

    # --- several networks

    async def test_a_sandbox_may_be_in_several_networks(self, bench: NetworkBench) -> None:
        first, second = await bench.network(), await bench.network()
        sandbox = await bench.attach(first, second)
        assert [each.network_id for each in sandbox.endpoints] == [first.id, second.id]
        assert [each.interface for each in sandbox.endpoints] == ["eth0", "eth1"]

    async def test_a_living_sandbox_is_connected_and_disconnected(
        self, bench: NetworkBench
    ) -> None:
        first, second = await bench.network(), await bench.network(subnet="10.77.0.0/24")
        sandbox = await bench.attach(first)
        endpoint = await bench.driver.connect(sandbox.container_id, second, fixed("10.77.0.7"))
        assert (endpoint.ipv4_address, endpoint.interface) == ("10.77.0.7", "eth1")
        with pytest.raises(Conflict):
            await bench.driver.connect(sandbox.container_id, second, EndpointSpec())
        await bench.driver.disconnect(sandbox.container_id, second)
        with pytest.raises(NotFound):
            await bench.driver.disconnect(sandbox.container_id, second)
        await bench.attach((second, fixed("10.77.0.7")))

    async def test_a_sandbox_without_networks_is_taken_over_from_another_driver(
        self, config: Any, bench: NetworkBench, fake_host: FakeHost
    ) -> None:
        network = await bench.network()
        elsewhere = attrs.evolve(fake_host, root=fake_host.root / "another", daemon_id="another")
        async with self.driver.open(config, elsewhere) as other:
            request = bench.request()
            before = await other.attach(request)
            files = _read(before.files)
            adopted = await bench.driver.adopt(before, request)
            bench.sandboxes[adopted.container_id] = adopted
            await other.detach(before.container_id)
        assert _read(adopted.files) == files
        with pytest.raises(FileNotFoundError):
            _read(before.files)
        endpoint = await bench.driver.connect(adopted.container_id, network, EndpointSpec())
        assert endpoint.ipv4_address
        with pytest.raises(Conflict):
            await bench.driver.attach(request)

    async def test_what_does_not_live_is_not_connected(self, bench: NetworkBench) -> None:
        network = await bench.network()
        with pytest.raises(NotFound):
            await bench.driver.connect(secrets.token_hex(32), network, EndpointSpec())
        with pytest.raises(NotFound):
            await bench.driver.disconnect(secrets.token_hex(32), network)

    async def test_a_refused_connection_leaves_the_address_free(self, bench: NetworkBench) -> None:
        first, second = await bench.network(), await bench.network(subnet="10.77.0.0/24")
        holder = await bench.attach((second, fixed("10.77.0.7")))
        sandbox = await bench.attach(first)
        with pytest.raises(Conflict):
            await bench.driver.connect(sandbox.container_id, second, fixed("10.77.0.7"))
        await bench.detach(holder)
        await bench.driver.connect(sandbox.container_id, second, fixed("10.77.0.7"))

    async def test_renaming_is_silent_when_there_is_nothing(self, bench: NetworkBench) -> None:
        sandbox = await bench.attach(await bench.network())
        await bench.driver.rename(sandbox.container_id, "another")
        await bench.driver.rename(secrets.token_hex(32), "nobody")

    async def test_links_may_change_and_it_is_silent_when_there_is_nothing(
        self, bench: NetworkBench
    ) -> None:
        network, other = await bench.network(), await bench.network()
        await bench.attach(network, name="target")
        sandbox = await bench.attach((network, EndpointSpec(links=("target:alias",))))
        before = _read(sandbox.files)["/etc/hosts"]
        await bench.driver.relink(sandbox.container_id, network, ())
        await bench.driver.relink(sandbox.container_id, other, ("target:alias",))
        await bench.driver.relink(secrets.token_hex(32), network, ())
        assert _read(sandbox.files)["/etc/hosts"] == before
        await bench.driver.relink(sandbox.container_id, network, ("target:another",))

    # --- ports

    def _need(self, bench: NetworkBench, cap: NetworkCap) -> None:
        if cap not in bench.driver.capabilities:
            pytest.skip(f"the driver does not declare {cap.name}")

    async def test_published_ports_are_numbers_of_their_own(self, bench: NetworkBench) -> None:
        self._need(bench, NetworkCap.PUBLISH)
        network = await bench.network()
        ports = tuple(PortBinding(container_port=port) for port in (80, 81))
        one, other = [await bench.attach(network, ports=ports) for _ in range(2)]
        assert [port.container_port for port in one.ports] == [80, 81]
        numbers = {port.host_port for port in (*one.ports, *other.ports)}
        assert len(numbers) == 4
        assert 0 not in numbers

    async def test_a_taken_port_is_named_and_nothing_is_left_of_the_try(
        self, bench: NetworkBench
    ) -> None:
        self._need(bench, NetworkCap.PUBLISH)
        network = await bench.network(subnet="10.77.0.0/24")
        port = PortBinding(container_port=80, host_port=28080)
        first = await bench.attach(network, ports=(port,))
        assert first.ports[0].host_port == 28080
        request = bench.request((network, fixed("10.77.0.7")), ports=(port,))
        with pytest.raises(Conflict) as caught:
            await bench.driver.attach(request)
        assert caught.value.code == "port_taken"
        assert set(caught.value.details) >= _TAKEN
        assert caught.value.details["port"] == 28080
        assert first.container_id[:6] in caught.value.details["holder"]
        await bench.detach(first)
        await bench.attach(
            (network, fixed("10.77.0.7")), ports=(port,), container_id=request.container_id
        )

    async def test_protocols_have_ports_of_their_own(self, bench: NetworkBench) -> None:
        self._need(bench, NetworkCap.PUBLISH)
        network = await bench.network()
        ports = tuple(
            PortBinding(container_port=53, host_port=28053, protocol=protocol)
            for protocol in ("tcp", "udp")
        )
        sandbox = await bench.attach(network, ports=ports)
        assert sandbox.ports == ports

    async def test_a_range_gives_its_first_free_port(self, bench: NetworkBench) -> None:
        self._need(bench, NetworkCap.PUBLISH)
        network = await bench.network()
        port = PortBinding(container_port=80, host_port=28090, host_port_end=28091)
        found = [(await bench.attach(network, ports=(port,))).ports[0] for _ in range(2)]
        assert [each.host_port for each in found] == [28090, 28091]
        with pytest.raises(Conflict):
            await bench.attach(network, ports=(port,))

    # --- balancing

    async def test_a_driver_that_cannot_balance_says_so(self, bench: NetworkBench) -> None:
        if NetworkCap.BALANCE in bench.driver.capabilities:
            pytest.skip("the driver can balance")
        port = PortBinding(container_port=80, host_port=28100)
        with pytest.raises(Unsupported):
            await bench.driver.balance(port, ())
        with pytest.raises(Unsupported):
            await bench.driver.unbalance(port)

    async def test_a_balanced_port_is_taken_until_it_is_not(self, bench: NetworkBench) -> None:
        self._need(bench, NetworkCap.BALANCE)
        sandbox = await bench.attach(await bench.network())
        backend = Backend(address=sandbox.endpoints[0].ipv4_address, port=80)
        port = PortBinding(container_port=80, host_port=28100)
        assert await bench.balance(port, backend) == port
        assert await bench.driver.balance(port, ()) == port
        assert await bench.driver.balance(port, (backend, backend)) == port
        network = await bench.network()
        with pytest.raises(Conflict) as caught:
            await bench.attach(network, ports=(port,))
        assert caught.value.code == "port_taken"
        await bench.driver.unbalance(port)
        await bench.driver.unbalance(port)
        await bench.attach(network, ports=(port,))

    async def test_a_published_port_cannot_be_balanced(self, bench: NetworkBench) -> None:
        self._need(bench, NetworkCap.BALANCE | NetworkCap.PUBLISH)
        port = PortBinding(container_port=80, host_port=28100)
        await bench.attach(await bench.network(), ports=(port,))
        with pytest.raises(Conflict) as caught:
            await bench.balance(port)
        assert caught.value.code == "port_taken"

    async def test_a_balanced_port_may_be_chosen(self, bench: NetworkBench) -> None:
        self._need(bench, NetworkCap.BALANCE)
        made = await bench.balance(PortBinding(container_port=80))
        assert made.host_port > 0

    # --- restart of the daemon

    async def test_after_a_restart_nothing_is_given_out_twice(
        self, config: Any, fake_host: FakeHost
    ) -> None:
        port = PortBinding(container_port=80, host_port=28110)
        async with self.driver.open(config, fake_host) as driver:
            before = NetworkBench(driver)
            network = await before.network(subnet="10.77.0.0/29")
            ports = (port,) if NetworkCap.PUBLISH in driver.capabilities else ()
            sandbox = await before.attach(network, ports=ports)
        async with self.driver.open(config, fake_host) as driver:
            bench = NetworkBench(driver)
            await driver.recover()
            await driver.restore([network], [sandbox])
            bench.networks[network.id] = network
            bench.sandboxes[sandbox.container_id] = sandbox
            try:
                for _ in range(4):
                    await bench.attach(network)
                found = {each.endpoints[0].ipv4_address for each in bench.sandboxes.values()}
                assert len(found) == 5
                for wanted in (ports, ()):
                    with pytest.raises(LinkspanError):
                        await bench.attach(network, ports=wanted)
                await bench.detach(sandbox)
                again = await bench.attach(network, ports=ports)
                assert again.ports == ports
            finally:
                await bench.clear()
