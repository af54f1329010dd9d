"""A build whose result or cache goes elsewhere: ``--output``, ``--push``, ``--cache-to``, ``--cache-from``."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from linkspan.core.cli.build_cache import (
    INLINE,
    Caches,
    forget_images,
    read_caches,
    send_folders,
    write_folders,
)
from linkspan.core.cli.build_options import Request
from linkspan.core.cli.build_output import Output, deliver, forget, known_images, read_outputs
from linkspan.core.cli.build_view import Steps
from linkspan.core.cli.failure import USAGE, Failure
from linkspan.core.cli.session import Session


def build_and_deliver(
    session: Session,
    request: Request,
    options: dict[str, Any],
    tags: list[str],
    run: Callable[[Request, Sequence[str]], Steps],
) -> tuple[Steps, bool]:
    """Build, then write or send what was asked for.

    Args:
        tags: Gets the names that outputs bring.
        run: Builds.

    Returns:
        What the build said, and whether stdout carries an output.
    """
    outputs = read_outputs(options["outputs"])
    caches = read_caches(options["sources"], options["targets"])
    if options["push"]:
        outputs.append(Output(kind="image", push=True))
    tags.extend(name for output in outputs for name in output.names)
    if any(output.push for output in outputs) and not tags:
        raise Failure("there is no name to push: give one with -t", id="LS0004", status=USAGE)
    # What is only written elsewhere shall not stay behind as an image without a name.
    passing = bool(outputs) and not tags and not any(o.keeps_image for o in outputs)
    known = known_images(session) if passing else set()
    loaded = send_folders(session, caches)
    try:
        steps = run(_with_caches(request, caches), tags)
    finally:
        forget_images(session, loaded)
    write_folders(session, caches, steps.caches)
    deliver(session, outputs, steps.image, tags)
    if passing:
        forget(session, steps.image, known)
    return steps, any(output.is_stdout for output in outputs)


def _with_caches(request: Request, caches: Caches) -> Request:
    query, extras = dict(request.query), dict(request.extras)
    if caches.inline:
        query["buildargs"] = json.dumps({**json.loads(query["buildargs"]), INLINE: "1"})
    if caches.sources:
        extras["cache_from"] = caches.sources
    if caches.targets:
        extras["cache_to"] = caches.targets
    return request.changed(query, extras)
