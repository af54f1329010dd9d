"""Names of images as they were before a step, and how they are given back."""

from collections.abc import Iterable, Mapping
from typing import Any

from linkspan.sdk.errors import Conflict, NotFound
from linkspan.sdk.host import Host
from linkspan.sdk.model.step import StepIntent


def id_of(host: Host, ref: str) -> str:
    """The id of an image of this machine; empty if there is none."""
    try:
        return host.engine.images.inspect(ref).id
    except NotFound:
        return ""


def names_now(host: Host, names: Iterable[str]) -> dict[str, Any]:
    """What a step records to give names back.

    Returns:
        ``before``: name → id, empty for a name that nothing has. ``loose``: ids of the images without a
        name, which must not go along with a name that they get now.
    """
    return {
        "before": {name: id_of(host, name) for name in names},
        "loose": [image.id for image in host.engine.images.list() if not image.repo_tags],
    }


async def give_back(host: Host, undo: Mapping[str, Any], made: str) -> list[str]:
    """Give each name back to the image that had it; a name that was new goes.

    What somebody else has done to a name since stays.

    Args:
        host: Has the images.
        undo: From ``names_now``.
        made: Id of the image that the step gave the names to; empty if it is not known.

    Returns:
        What was done and what stays, a phrase each.
    """
    told = []
    for name, before in undo["before"].items():
        holder = id_of(host, name)
        if holder in ("", before):
            continue
        if made and holder != made:
            told.append(f"{name} stays: it was given to {holder[:19]} since")
        elif not before:
            told.append(await _take_away(host, name, undo.get("loose", ())))
        elif id_of(host, before):
            await host.engine.images.tag(before, name)
            told.append(f"{name} is {before[:19]} again")
        else:
            told.append(f"{name} stays: {before[:19]}, which had it, is gone")
    return told


async def _take_away(host: Host, name: str, loose: Iterable[str]) -> str:
    image = host.engine.images.inspect(name)
    if image.id in loose and len(image.repo_tags) == 1:
        return f"{name} stays: without it {image.id[:19]} would go, which was here before"
    try:
        await host.engine.images.remove(name)
    except Conflict as conflict:
        return f"{name} stays: {conflict.message}"
    return f"{name} is gone"


async def drop_if_new(host: Host, undo: Mapping[str, Any], image_id: str) -> list[str]:
    """Remove an image that a step has made or got, if it has no name now and nobody uses it."""
    if not image_id or image_id in undo["loose"] or not id_of(host, image_id):
        return []
    if host.engine.images.inspect(image_id).repo_tags:
        return []
    try:
        await host.engine.images.remove(image_id)
    except Conflict as conflict:
        return [f"image {image_id[:19]} stays: {conflict.message}"]
    return [f"image {image_id[:19]} is gone"]


async def take_back(host: Host, intent: StepIntent) -> dict[str, Any]:
    """Undo a step that got or made the image of its output ``id``, and others of ``images``: what was done."""
    made: str = intent.outputs.get("id", "")
    told = await give_back(host, intent.undo, made)
    for each in dict.fromkeys((made, *intent.outputs.get("images", {}).values())):
        told += await drop_if_new(host, intent.undo, each)
    return {"detail": "; ".join(told) or "nothing to take back"}
