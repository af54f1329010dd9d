"""A daemon that is killed: it makes networks and sandboxes, says what it made, and dies without cleaning up.

Run by ``test_restart.py``: ``killed_daemon.py ROOT``.
"""

import json
import os
import signal
import sys
from pathlib import Path

import attrs
import trio

from linkspan.plugins.bridge_network.config import BridgeConfig
from linkspan.plugins.bridge_network.driver import BridgeNetwork
from linkspan.sdk.drivers.network import AttachRequest
from linkspan.sdk.model.network import (
    AddressPool,
    Backend,
    EndpointSpec,
    Network,
    NetworkSpec,
    PortBinding,
)
from linkspan.sdk.testing.host import FakeHost


async def main(root: Path) -> None:
    async with trio.open_nursery() as nursery:
        host = FakeHost(root=root, nursery=nursery)
        async with BridgeNetwork.open(BridgeConfig(), host) as driver:
            networks = {}
            for number, name in enumerate(("bridge", "shop", "forgotten")):
                pool = AddressPool(subnet=f"10.20{number}.0.0/24")
                spec = NetworkSpec(name=name, pools=(pool,))
                networks[name] = await driver.create_network(
                    Network(id=str(number) * 64, spec=spec, created_at="")
                )
            sandboxes = {}
            ports = (
                PortBinding(container_port=80, host_port=8080),
                PortBinding(container_port=80),
            )
            for name, network, published in (
                ("web", "bridge", ports),
                ("db", "shop", ()),
                ("cache", "shop", ()),
                ("forgotten", "shop", (PortBinding(container_port=80, host_port=8090),)),
            ):
                request = AttachRequest(
                    container_id=(name.encode().hex() * 16)[:64],
                    name=name,
                    hostname=name,
                    networks=((networks[network], EndpointSpec()),),
                    ports=published,
                )
                sandboxes[name] = await driver.attach(request)
            backends = tuple(
                Backend(address=sandboxes[name].endpoints[0].ipv4_address, port=80)
                for name in ("db", "cache", "forgotten")
            )
            await driver.balance(PortBinding(container_port=80, host_port=9000), backends)
            await trio.sleep(0.3)  # the pool fills
            del sandboxes["forgotten"], networks["forgotten"]
            made = {
                "networks": [attrs.asdict(network) for network in networks.values()],
                "sandboxes": {name: attrs.asdict(each) for name, each in sandboxes.items()},
            }
            sys.stdout.write(json.dumps(made))
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)


trio.run(main, Path(sys.argv[1]))
