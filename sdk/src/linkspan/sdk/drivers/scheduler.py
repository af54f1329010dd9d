"""Role ``scheduler``: which node takes a task. Pure: no I/O, no state."""

import abc
import enum
from collections.abc import Mapping, Sequence

import attrs

from linkspan.sdk.drivers.base import Config, Driver
from linkspan.sdk.model.service import GenericResource, Node, Task
from linkspan.sdk.stability import Stage, contract
from linkspan.sdk.values import frozen


class SchedulerCap(enum.Flag):
    """What this scheduler can."""

    NONE = 0
    PREFERENCES = enum.auto()


@frozen(kw_only=True)
class NodeView:
    """A node and what runs there."""

    node: Node
    tasks: tuple[Task, ...] = ()


@frozen(kw_only=True)
class Decision:
    """Where a task goes.

    Attributes:
        node_id: None if no node can take it.
        reasons: Why nodes were refused → how many (``{"insufficient memory": 2}``).
        generic_resources: What the task gets of the node's.
    """

    task_id: str
    node_id: str | None
    reasons: Mapping[str, int] = attrs.field(factory=dict)
    generic_resources: tuple[GenericResource, ...] = ()

    def explain(self) -> str:
        """``no suitable node (insufficient memory on 2 nodes)``."""
        parts = ", ".join(
            f"{why} on {n} node{'s' if n != 1 else ''}" for why, n in self.reasons.items()
        )
        return f"no suitable node ({parts})" if parts else "no suitable node"


@contract(role="scheduler", version=1, stage=Stage.BETA, since="0.1")
class Scheduler(Driver[Config], abc.ABC):
    """Places tasks."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> SchedulerCap:
        """What this scheduler can."""

    @abc.abstractmethod
    def place(self, tasks: Sequence[Task], nodes: Sequence[NodeView]) -> list[Decision]:
        """Decide for all tasks at once, in their order; each decision sees those before it.

        Never raises for an unplaceable task; the same input gives the same output.
        """
