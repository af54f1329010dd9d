"""What templates see of a record where the API sends nothing: the zero values of Docker's own types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from linkspan.sdk.templates import NilPointer

_NIL: Final = NilPointer()


class _NoList(list[Any]):
    """A list that was not sent: ``[]``, and null in JSON."""

    def as_json(self) -> str:
        """As Go writes it."""
        return "null"


class _NoMap(dict[str, Any]):
    """A map that was not sent: ``map[]``, and null in JSON."""

    def as_json(self) -> str:
        """As Go writes it."""
        return "null"


class Shape(NamedTuple):
    """What a part of a record has beside what was sent.

    Attributes:
        lists: Fields that are lists.
        maps: Fields that are maps.
        texts: Fields that are texts.
        flags: Fields that are true or false.
        others: Fields that are there or not: pointers, in Go.
        parts: Field → the shape of what it holds; ``*`` for each value of a map.
    """

    lists: str = ""
    maps: str = ""
    texts: str = ""
    flags: str = ""
    others: str = ""
    parts: Mapping[str, Shape] = {}


_LABELLED: Final = Shape(parts={"Spec": Shape(maps="Labels")})
_GRAPH: Final = Shape(maps="Data")
_SHAPES: Final[dict[str, Shape]] = {
    "container": Shape(
        lists="Args ExecIDs Mounts",
        others="ImageManifestDescriptor SizeRw SizeRootFs",
        parts={
            "State": Shape(others="Health"),
            "Config": Shape(
                lists="Env Cmd Entrypoint OnBuild Shell",
                maps="ExposedPorts Volumes Labels",
                texts="StopSignal MacAddress",
                flags="ArgsEscaped NetworkDisabled",
                others="Healthcheck StopTimeout",
            ),
            "HostConfig": Shape(
                lists="Binds VolumesFrom CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links"
                " SecurityOpt BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps"
                " BlkioDeviceReadIOps BlkioDeviceWriteIOps Devices DeviceCgroupRules DeviceRequests"
                " Ulimits Mounts MaskedPaths ReadonlyPaths",
                maps="PortBindings Annotations StorageOpt Sysctls Tmpfs",
                others="Init MemorySwappiness OomKillDisable PidsLimit",
                parts={"LogConfig": Shape(maps="Config")},
            ),
            "GraphDriver": _GRAPH,
            "NetworkSettings": Shape(
                lists="SecondaryIPAddresses SecondaryIPv6Addresses",
                maps="Ports Networks",
                parts={
                    "Networks": Shape(
                        parts={
                            "*": Shape(
                                lists="Links Aliases DNSNames",
                                maps="DriverOpts",
                                others="IPAMConfig",
                            )
                        }
                    )
                },
            ),
        },
    ),
    "image": Shape(
        lists="RepoTags RepoDigests Manifests",
        texts="Comment Author Container",
        others="Config ContainerConfig Descriptor",
        parts={
            "Config": Shape(
                lists="Env Cmd Entrypoint OnBuild Shell",
                maps="ExposedPorts Volumes Labels",
                texts="StopSignal",
                others="Healthcheck",
            ),
            "GraphDriver": _GRAPH,
            "RootFS": Shape(lists="Layers"),
        },
    ),
    "volume": Shape(
        maps="Status Labels Options", texts="CreatedAt", others="ClusterVolume UsageData"
    ),
    "network": Shape(
        lists="Peers",
        maps="Services Containers Options Labels",
        others="ConfigFrom",
        parts={"IPAM": Shape(lists="Config", maps="Options")},
    ),
    "service": Shape(
        others="PreviousSpec UpdateStatus ServiceStatus JobStatus", parts=_LABELLED.parts
    ),
    "node": Shape(
        others="ManagerStatus", parts={**_LABELLED.parts, "Status": Shape(texts="Message")}
    ),
    "secret": _LABELLED,
    "config": _LABELLED,
}


def _zeros(shape: Shape) -> dict[str, Any]:
    return {
        **{name: _NoList() for name in shape.lists.split()},
        **{name: _NoMap() for name in shape.maps.split()},
        **dict.fromkeys(shape.texts.split(), ""),
        **dict.fromkeys(shape.flags.split(), False),
        **dict.fromkeys(shape.others.split(), _NIL),
    }


class _Whole(dict[str, Any]):
    """A part of a record that knows what else it might have; that is not among its items."""

    def __init__(self, sent: dict[str, Any], zeros: dict[str, Any]) -> None:
        super().__init__(sent)
        self._zeros = zeros

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self._zeros

    def __getitem__(self, key: str) -> Any:
        found = self.get(key)
        return (
            self._zeros[key] if found is None and key in self._zeros else super().__getitem__(key)
        )


def whole(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """A record that a template may ask for what the API has left out of it, or has sent as null."""
    return _wrapped(record, _SHAPES.get(kind, Shape()))


def _wrapped(sent: dict[str, Any], shape: Shape) -> dict[str, Any]:
    found = dict(sent)
    for name, value in sent.items():
        inner = shape.parts.get(name) or shape.parts.get("*")
        if inner is not None and isinstance(value, dict):
            found[name] = _wrapped(value, inner)
    zeros = _zeros(shape)
    return _Whole(found, zeros) if zeros else found
