"""Placement constraints and preferences of services (swarmkit ``manager/constraint``); pure.

An orchestrator refuses what ``parse_constraint`` and ``parse_preference`` refuse; a scheduler asks
``Constraint.holds``.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.image import Platform
from linkspan.sdk.model.service import Node
from linkspan.sdk.platform import normalize_platform
from linkspan.sdk.values import frozen

_CONSTRAINT = re.compile(r"\s*([^\s=!]+)\s*(==|!=)\s*(\S(?:.*\S)?)\s*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.\-/]*[A-Za-z0-9])?")
_LABELS = "node.labels."
_ENGINE_LABELS = "engine.labels."
_ADDRESS = "node.ip"

_FACTS: Final[Mapping[str, Callable[[Node], str]]] = {
    "node.id": lambda node: node.id,
    "node.hostname": lambda node: node.hostname,
    "node.role": lambda node: node.role,
    "node.platform.os": lambda node: node.platform.os,
    "node.platform.arch": lambda node: node.platform.architecture,
    _ADDRESS: lambda node: node.address,
}


def node_fact(node: Node, key: str) -> str:
    """What a node has under a constraint's key; empty for a label it does not carry."""
    if key.startswith(_LABELS):
        return node.labels.get(key.removeprefix(_LABELS), "")
    if key.startswith(_ENGINE_LABELS):
        return node.engine_labels.get(key.removeprefix(_ENGINE_LABELS), "")
    return _FACTS[key](node)


@frozen
class Constraint:
    """``node.labels.zone==a``, ``node.role!=manager``; values match without regard to case."""

    key: str
    equal: bool
    value: str

    def holds(self, node: Node) -> bool:
        """Whether a node may take the task. A label that is not there equals nothing."""
        if self.key == _ADDRESS:
            return _is_within(node.address, self.value) is self.equal
        value = self.value.casefold()
        if self.key == "node.platform.arch":
            # Docker's nodes say x86_64 and aarch64 where images say amd64 and arm64.
            value = normalize_platform(Platform(os="linux", architecture=value)).architecture
        same = node_fact(node, self.key).casefold() == value
        return same is self.equal

    def __str__(self) -> str:
        return f"{self.key}{'==' if self.equal else '!='}{self.value}"


def _is_within(address: str, network: str) -> bool:
    """Whether an address is another one, or in a subnet; what is neither has nobody in it."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def parse_constraint(text: str) -> Constraint:
    """Read ``key==value`` or ``key!=value``.

    Keys: ``node.id``, ``node.hostname``, ``node.role``, ``node.platform.os``, ``node.platform.arch``,
    ``node.ip`` (an address or a subnet), ``node.labels.<name>``, ``engine.labels.<name>`` (labels of the daemon).

    Raises:
        InvalidArgument: code ``invalid_constraint``.
    """
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise InvalidArgument(
            f"invalid constraint '{text}'",
            code="invalid_constraint",
            help="write node.labels.zone==a or node.role!=manager",
        )
    key, operator, value = match.groups()
    _check_key(key, text)
    return Constraint(key, operator == "==", value)


def parse_preference(text: str) -> str:
    """The key of ``spread=node.labels.zone`` or ``spread=engine.labels.zone``.

    As in Docker, a key of any other form is kept, and spreads over nothing: see :func:`spreads`.

    Raises:
        InvalidArgument: It is no ``spread=…``; code ``invalid_preference``.
    """
    kind, equals, key = (part.strip() for part in text.partition("="))
    if kind != "spread" or not equals:
        raise InvalidArgument(
            f"invalid placement preference '{text}'",
            code="invalid_preference",
            help="write spread=node.labels.zone",
        )
    return key


def spreads(key: str) -> bool:
    """Whether nodes can differ under the key of a preference: it names a label."""
    return key.startswith((_LABELS, _ENGINE_LABELS))


def _check_key(key: str, text: str) -> None:
    for prefix in (_LABELS, _ENGINE_LABELS):
        if key.startswith(prefix) and _LABEL_NAME.fullmatch(key.removeprefix(prefix)):
            return
    if key in _FACTS:
        return
    near = did_you_mean(key, (*_FACTS, "node.labels"))
    hint = f"did you mean {near}?" if near else f"keys are {', '.join(_FACTS)}, node.labels.NAME"
    raise InvalidArgument(
        f"invalid constraint '{text}': unknown key '{key}'", code="invalid_constraint", help=hint
    )
