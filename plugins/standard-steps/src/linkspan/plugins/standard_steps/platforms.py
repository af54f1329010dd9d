"""One name for images of several platforms: which ones were built together."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.host import Host
from linkspan.sdk.model.image import Attachment
from linkspan.sdk.platform import host_platform, normalize_platform, parse_platform

PLATFORMS: Final = "application/vnd.linkspan.platforms.v1+json"
"""Media type under which an image keeps platform → id of those that were built with it, its own included."""


def wanted_platforms(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What a build is for, this machine's own last; one empty text for whatever the builder takes.

    Raises:
        InvalidArgument: A platform cannot be read, or is written twice.
    """
    named: Sequence[str] = settings.get("platforms", [])
    if not named:
        return (settings.get("platform", ""),)
    if "platform" in settings:
        raise InvalidArgument("'platform' and 'platforms' say the same: give one of them")
    host = normalize_platform(host_platform())
    found = [str(normalize_platform(parse_platform(name, host=host))) for name in named]
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgument(f"the platform {twice} stands twice in 'platforms'")
    # A base image's name means the platform that was pulled last: in the end this machine's.
    return tuple(sorted(found, key=lambda name: name == str(host)))


async def keep_together(host: Host, main: str, images: Mapping[str, str]) -> None:
    """Remember with an image which ones were built with it.

    Args:
        main: Id of the one that gets the tags.
        images: Platform → id; only its own if it was built alone.
    """
    known = {each.media_type for each in await host.engine.images.attachments(main)}
    if len(images) > 1 or PLATFORMS in known:
        data = json.dumps(dict(images)).encode()
        await host.engine.images.attach(main, Attachment(media_type=PLATFORMS, data=data))


async def built_together(host: Host, main: str) -> Mapping[str, str]:
    """Platform → id of the images that were built with one; just itself, under an empty name, if it is alone."""
    for each in await host.engine.images.attachments(main):
        if each.media_type == PLATFORMS:
            found: Mapping[str, str] = json.loads(each.data)
            if len(found) > 1:
                return found
    return {"": main}
