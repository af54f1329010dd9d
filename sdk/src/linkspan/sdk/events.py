"""What happened, as one record for all (Docker API EventMessage)."""

import time
from collections.abc import Mapping

import attrs

from linkspan.sdk.model.container import Container
from linkspan.sdk.model.image import Image
from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Event:
    """An event.

    Attributes:
        type: ``container``, ``image``, ``network``, ``volume``, ``service``, ``node``, ``task``,
            ``workflow``, ``builder``, ``daemon``.
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


def container_event(action: str, container: Container, **facts: str) -> Event:
    """What happened to a container, with its labels, image and name as Docker tells them."""
    attributes = {
        **container.labels,
        "image": container.spec.image,
        "name": container.name,
        **facts,
    }
    return Event(type="container", action=action, actor_id=container.id, attributes=attributes)


def image_event(action: str, image: Image, name: str = "", *, actor_id: str = "") -> Event:
    """What happened to an image: its labels, and the name that was used (else its id)."""
    attributes = {**image.config.labels, "name": name or image.id}
    return Event(type="image", action=action, actor_id=actor_id or image.id, attributes=attributes)
