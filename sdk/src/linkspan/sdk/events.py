"""What happened, as one record for all (Docker API EventMessage)."""

import time
from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class Event:
    """An event.

    Attributes:
        type: ``container``, ``image``, ``network``, ``volume``, ``service``, ``node``, ``task``,
            ``workflow``, ``daemon``.
        action: ``create``, ``start``, ``die``, …: Docker's words where Docker has them.
        actor_id: Whose event.
        attributes: Labels and facts, text only.
        time_ns: Nanoseconds since the epoch.
        version: Of this record's shape.
    """

    type: str
    action: str
    actor_id: str
    attributes: Mapping[str, str] = attrs.field(factory=dict)
    time_ns: int = attrs.field(factory=time.time_ns)
    scope: str = "local"
    version: int = 1
