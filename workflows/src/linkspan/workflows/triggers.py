"""``on``: what begins a run besides a person."""

from typing import Literal

import attrs

from linkspan.sdk.diagnostics import Span
from linkspan.workflows.cron import Cron

NAMES = ("push", "tag", "schedule", "watch", "webhook", "manual")


def _span() -> Span:
    field: Span = attrs.field(eq=False, repr=False)
    return field


@attrs.frozen(kw_only=True)
class Push:
    """A push to a branch.

    Attributes:
        branches: Globs; empty for all. One that begins with ``!`` takes away what those before it gave.
        paths: Globs of changed files, likewise; empty for all.
    """

    branches: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    span: Span = _span()


@attrs.frozen(kw_only=True)
class TagPush:
    """A pushed tag.

    Attributes:
        tags: Globs, as ``Push.branches``.
    """

    tags: tuple[str, ...] = ()
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Schedule:
    """A point in time, again and again.

    Attributes:
        cron: The five fields as written.
        fields: The same, read.
        timezone: An IANA name.
    """

    cron: str
    fields: Cron
    timezone: str = "UTC"
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Watch:
    """Changed files, under ``linkspan workflow watch``.

    Attributes:
        paths: Globs.
        debounce_s: How long it must have been quiet.
    """

    paths: tuple[str, ...]
    debounce_s: float = 0.3
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Webhook:
    """A request from elsewhere, signed with a secret.

    Attributes:
        provider: Whose way of signing and naming events.
        secret: A name declared in ``secrets``.
        events: Names of events; empty for all.
        branches: Globs, as ``Push.branches``; empty for all.
    """

    provider: Literal["github", "gitlab", "generic"]
    secret: str
    events: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    span: Span = _span()


@attrs.frozen(kw_only=True)
class Triggers:
    """All of ``on``.

    Attributes:
        manual: Whether people may start it; true unless ``on`` says ``manual: false``.
    """

    push: Push | None = None
    tag: TagPush | None = None
    schedules: tuple[Schedule, ...] = ()
    watch: Watch | None = None
    webhooks: tuple[Webhook, ...] = ()
    manual: bool = True
