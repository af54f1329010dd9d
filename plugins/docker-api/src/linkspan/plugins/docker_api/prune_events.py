"""Prunes tell what they freed, as Docker's do."""

from linkspan.sdk.events import Event
from linkspan.sdk.host import Host


def tell_pruned(host: Host, kind: str, reclaimed_bytes: int = 0) -> None:
    """Publish the event ``prune`` of a kind of objects, also when nothing went."""
    attributes = {"reclaimed": str(reclaimed_bytes)}
    host.engine.events.publish(Event(type=kind, action="prune", actor_id="", attributes=attributes))
