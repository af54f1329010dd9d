"""Generic resources between JSON and the model: what nodes offer, services reserve and tasks get."""

from collections.abc import Iterable
from typing import Any

from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.model.service import GenericResource


def decode_generic_resources(body: Document) -> tuple[GenericResource, ...]:
    """The list ``GenericResources`` of an object. Raises InvalidArgument."""
    found = []
    for entry in body.documents("GenericResources"):
        named, counted = entry.document("NamedResourceSpec"), entry.document("DiscreteResourceSpec")
        if "DiscreteResourceSpec" in entry:
            count = counted.number("Value")
            found.append(GenericResource(kind=counted.text("Kind"), count=count))
        elif "NamedResourceSpec" in entry:
            found.append(GenericResource(kind=named.text("Kind"), name=named.text("Value")))
    return tuple(found)


def encode_generic_resources(resources: Iterable[GenericResource]) -> list[dict[str, Any]]:
    """As Docker writes them; empty values are left out."""
    return [_encode(one) for one in resources]


def _encode(one: GenericResource) -> dict[str, Any]:
    value: str | int = one.name or one.count
    spec = {"Kind": one.kind, "Value": value}
    key = "NamedResourceSpec" if one.name else "DiscreteResourceSpec"
    return {key: {name: inner for name, inner in spec.items() if inner}}
