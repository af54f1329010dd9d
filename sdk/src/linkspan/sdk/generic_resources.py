"""Resources that nodes offer and tasks reserve by a kind's name (swarmkit ``api/genericresource``); pure.

A node offers a kind by number (``ssd=3``) or by names (``gpu=first``, ``gpu=second``). Tasks reserve a
number; of named ones they are told which they got.
"""

from collections.abc import Iterable, Sequence

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.service import GenericResource


def parse_generic_resources(texts: Iterable[str]) -> tuple[GenericResource, ...]:
    """What a node offers, as a daemon is told: ``gpu=first``, ``gpu=second``, ``ssd=3``.

    Raises:
        InvalidArgument: A text is none, a number is negative, or a kind has numbers and names, or two numbers.
    """
    values: dict[str, list[str]] = {}
    for text in texts:
        kind, equals, value = text.partition("=")
        if not equals or not kind or not value or "=" in value:
            raise _refused(f"incorrect term {text}, missing '=' or malformed expression")
        values.setdefault(kind, []).append(value)
    return tuple(found for kind in values for found in _of_kind(kind, values[kind]))


def _of_kind(kind: str, values: Sequence[str]) -> list[GenericResource]:
    numbers = [number for number in map(_whole, values) if number is not None]
    if not numbers:
        return [GenericResource(kind=kind, name=value) for value in dict.fromkeys(values)]
    if len(values) > 1:
        words = " ".join(values)
        raise _refused(f"mixed discrete and named resources in expression '{kind}=[{words}]'")
    if numbers[0] < 0:
        raise _refused(f"cannot ask for negative resource {kind}")
    return [GenericResource(kind=kind, count=numbers[0])]


def _whole(text: str) -> int | None:
    digits = text.removeprefix("-").removeprefix("+")
    return int(text) if digits.isdecimal() and digits.isascii() and len(digits) < 19 else None


def _refused(why: str) -> InvalidArgument:
    return InvalidArgument(
        f"could not parse GenericResource: {why}",
        code="invalid_generic_resource",
        help="write gpu=NAME once for each of them, or ssd=3",
    )


def free_resources(
    offered: Sequence[GenericResource], taken: Iterable[GenericResource]
) -> tuple[GenericResource, ...]:
    """What is left of a node's resources."""
    names: set[tuple[str, str]] = set()
    counts: dict[str, int] = {}
    for one in taken:
        if one.name:
            names.add((one.kind, one.name))
        else:
            counts[one.kind] = counts.get(one.kind, 0) + one.count
    left = []
    for one in offered:
        if one.name and (one.kind, one.name) not in names:
            left.append(one)
        elif not one.name and one.count > counts.get(one.kind, 0):
            count = one.count - counts.get(one.kind, 0)
            left.append(GenericResource(kind=one.kind, count=count))
    return tuple(left)


def claim_resources(
    free: Sequence[GenericResource], reserved: Iterable[GenericResource]
) -> tuple[GenericResource, ...] | None:
    """What a task gets of what is free; None if that is not enough.

    A reservation by name is never met, as in Docker: which one a task gets is not its choice.
    """
    left, claimed = tuple(free), list[GenericResource]()
    for one in reserved:
        of_kind = [each for each in left if each.kind == one.kind]
        if one.name or not of_kind:
            return None
        if of_kind[0].name:
            got = of_kind[: max(0, one.count)]
            enough = len(of_kind) >= one.count
        else:
            got = [GenericResource(kind=one.kind, count=one.count)] if one.count > 0 else []
            enough = of_kind[0].count >= one.count
        if not enough:
            return None
        claimed += got
        left = free_resources(left, got)
    return tuple(claimed)


def resource_environment(resources: Iterable[GenericResource]) -> tuple[str, ...]:
    """What a task's program is told of what it got: ``DOCKER_RESOURCE_GPU=first,second``."""
    values: dict[str, list[str]] = {}
    for one in resources:
        values.setdefault(one.kind, []).append(one.name or str(one.count))
    return tuple(f"DOCKER_RESOURCE_{kind.upper()}={','.join(values[kind])}" for kind in values)
