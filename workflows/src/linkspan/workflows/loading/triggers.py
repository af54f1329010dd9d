"""``on``: a name, a list of names, or names with their settings."""

import zoneinfo
from typing import Final, get_args

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.workflows.cron import CronInvalid, parse_cron
from linkspan.workflows.loading.keys import PUSH, SCHEDULE, TAG, WATCH, WEBHOOK
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.parse import Field, Mapping, Node, Scalar
from linkspan.workflows.triggers import (
    NAMES,
    Push,
    Schedule,
    TagPush,
    Triggers,
    Watch,
    Webhook,
)

_PROVIDERS: Final = get_args(Webhook.__annotations__["provider"])
_ELSEWHERE: Final = {
    "workflow_dispatch": "manual",
    "repository_dispatch": "webhook",
    "cron": "schedule",
    "web": "manual",
    "api": "webhook",
}


def read_triggers(scene: Scene, node: Node) -> Triggers:
    """``on``."""
    r = scene.r
    found: dict[str, tuple[Scalar, Node | None]] = {}
    if isinstance(node, Mapping):
        for name, field in r.entries(node, "'on'").items():
            found[name] = (field.key, field.value)
    else:
        for item in r.one_or_more(node):
            if r.text(item, "a trigger") is not None and isinstance(item, Scalar):
                found[item.text] = (item, None)
    for name, (key, _) in found.items():
        if name not in NAMES:
            _unknown(scene, key)
    return Triggers(
        push=_push(scene, *found["push"]) if "push" in found else None,
        tag=_tag(scene, *found["tag"]) if "tag" in found else None,
        schedules=_schedules(scene, *found["schedule"]) if "schedule" in found else (),
        watch=_watch(scene, *found["watch"]) if "watch" in found else None,
        webhooks=_webhooks(scene, *found["webhook"]) if "webhook" in found else (),
        manual=_manual(scene, found["manual"][1]) if "manual" in found else True,
    )


def _unknown(scene: Scene, key: Scalar) -> None:
    helps = [f"triggers here: {', '.join(NAMES)}"]
    name = key.text.replace("_", "-")
    near = _ELSEWHERE.get(key.text) or did_you_mean(key.text, NAMES)
    fix = None
    if name.startswith(("pull-request", "merge-request")):
        helps.append(
            "linkspan runs no forge; call it from your forge's own pull-request job, "
            "or use `webhook`"
        )
    elif name == "workflow-call":
        helps.insert(0, "any pipeline can be called:  jobs: {x: {uses: ./other.yaml}}; remove it")
    elif near:
        helps.insert(0, f"did you mean '{near}'?")
        fix = near
    scene.r.fault("LS1012", f"trigger '{key.text}' does not exist", key, helps=helps, fix=fix)


def _fields(scene: Scene, node: Node | None, what: str, keys: object) -> dict[str, Field]:
    """The settings of a trigger; one that is named alone, or has none, has no settings."""
    if node is None or (isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null")):
        return {}
    return scene.r.table(node, what, keys)  # type: ignore[arg-type]


def _push(scene: Scene, key: Scalar, node: Node | None) -> Push:
    fields = _fields(scene, node, "trigger 'push'", PUSH)
    return Push(
        branches=scene.words(fields, "branches"),
        paths=scene.words(fields, "paths"),
        span=key.span,
    )


def _tag(scene: Scene, key: Scalar, node: Node | None) -> TagPush:
    fields = _fields(scene, node, "trigger 'tag'", TAG)
    return TagPush(tags=scene.words(fields, "tags"), span=key.span)


def _schedules(scene: Scene, key: Scalar, node: Node | None) -> tuple[Schedule, ...]:
    if node is None:
        scene.r.fault(
            "LS1008",
            "the trigger 'schedule' needs a time",
            key,
            helps=['on: {schedule: [{cron: "0 3 * * *"}]}'],
        )
        return ()
    found = (_schedule(scene, each) for each in scene.r.one_or_more(node))
    return tuple(each for each in found if each is not None)


def _schedule(scene: Scene, node: Node) -> Schedule | None:
    r = scene.r
    fields = r.table(node, "a schedule", SCHEDULE)
    if not isinstance(node, Mapping):
        return None
    if not r.require(fields, "cron", "a schedule", node, 'cron: "0 3 * * *"'):
        return None
    where = fields["cron"].value
    text = r.text(where, "'cron'")
    timezone = scene.text(fields, "timezone") or "UTC"
    if "timezone" in fields and not _zone_exists(timezone):
        near = did_you_mean(timezone, zoneinfo.available_timezones())
        helps = [f"did you mean '{near}'?"] if near else ["write an IANA name: Europe/Berlin"]
        place = fields["timezone"].value
        r.fault("LS1013", f"there is no time zone '{timezone}'", place, helps=helps, fix=near)
    if text is None:
        return None
    try:
        cron = parse_cron(text)
    except CronInvalid as fault:
        helps = ['minute hour day month weekday: "0 3 * * 1-5" is 03:00, Monday to Friday']
        r.fault("LS1013", f"the schedule {fault}", where, helps=helps)
        return None
    return Schedule(cron=text, fields=cron, timezone=timezone, span=where.span)


def _zone_exists(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return True


def _watch(scene: Scene, key: Scalar, node: Node | None) -> Watch:
    fields = _fields(scene, node, "trigger 'watch'", WATCH)
    return Watch(
        paths=scene.words(fields, "paths") or ("**",),
        debounce_s=scene.given(fields, "debounce", scene.r.duration, 0.3),
        span=key.span,
    )


def _webhooks(scene: Scene, key: Scalar, node: Node | None) -> tuple[Webhook, ...]:
    if node is None:
        scene.r.fault(
            "LS1008",
            "the trigger 'webhook' needs a secret, or anybody could start it",
            key,
            helps=["on: {webhook: {provider: github, secret: NAME}}"],
        )
        return ()
    found = (_webhook(scene, each) for each in scene.r.one_or_more(node))
    return tuple(each for each in found if each is not None)


def _webhook(scene: Scene, node: Node) -> Webhook | None:
    r = scene.r
    fields = r.table(node, "trigger 'webhook'", WEBHOOK)
    if not isinstance(node, Mapping):
        return None
    provider = scene.given(fields, "provider", lambda n, w: r.choice(n, w, _PROVIDERS), "generic")
    if not r.require(fields, "secret", "trigger 'webhook'", node, "secret: NAME"):
        return None
    secret = scene.text(fields, "secret")
    scene.declared(secret, fields["secret"].value)
    return Webhook(
        provider=provider,  # type: ignore[arg-type]
        secret=secret,
        events=scene.words(fields, "events"),
        branches=scene.words(fields, "branches"),
        span=node.span,
    )


def _manual(scene: Scene, node: Node | None) -> bool:
    if node is None:
        return True
    value = scene.r.boolean(node, "'manual'")
    return True if value is None else value
