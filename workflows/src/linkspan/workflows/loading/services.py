"""``services`` of a job: Compose's keys, those that make sense beside a job."""

import re
from typing import Final

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.workflows.loading.keys import HEALTHCHECK, SERVICE
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.model import HealthcheckText, JobService, Text
from linkspan.workflows.parse import Field, Mapping, Node, Scalar, Sequence
from linkspan.workflows.reader import Keys

_CONDITIONS: Final = ("service_started", "service_healthy")
_PULL: Final = ("always", "missing", "never", "if_not_present")
_PORT = re.compile(r"(?:(?:[0-9.]+|\[[0-9a-fA-F:]+\]):)?(?:\d{1,5}:)?\d{1,5}(?:/(?:tcp|udp|sctp))?")


def read_services(scene: Scene, field: Field | None) -> dict[str, JobService]:
    """``services``."""
    if field is None:
        return {}
    found = scene.r.names(field.value, "'services'")
    services = {name: _service(scene, name, each) for name, each in found.items()}
    for service in services.values():
        for other in service.depends_on:
            if other not in services:
                near = did_you_mean(other, services)
                scene.r.fault(
                    "LS1101",
                    f"service '{service.name}' depends on '{other}', which does not exist",
                    service.span,
                    helps=[f"did you mean '{near}'?"] if near else [],
                )
    return services


def _service(scene: Scene, name: str, field: Field) -> JobService:
    r, what = scene.r, f"service '{name}'"
    fields = r.table(field.value, what, SERVICE)
    if isinstance(field.value, Mapping):
        r.require(fields, "image", what, field.key, "image: NAME")
    return JobService(
        name=name,
        image=scene.template(fields, "image") or "",
        condition=scene.get(fields, "if", r.condition),
        command=_command(scene, fields.get("command")),
        entrypoint=_command(scene, fields.get("entrypoint")),
        environment=_environment(scene, fields.get("environment")),
        healthcheck=scene.get(fields, "healthcheck", lambda n: read_healthcheck(scene, n)),
        tmpfs=scene.words(fields, "tmpfs"),
        user=scene.text(fields, "user"),
        working_dir=scene.text(fields, "working_dir"),
        depends_on=_depends_on(scene, fields.get("depends_on")),
        cap_add=scene.words(fields, "cap_add"),
        cap_drop=scene.words(fields, "cap_drop"),
        dns=scene.words(fields, "dns"),
        extra_hosts=_pairs(scene, fields.get("extra_hosts"), ":"),
        hostname=scene.text(fields, "hostname"),
        init=scene.given(fields, "init", r.boolean, False),
        labels=_environment(scene, fields.get("labels"), free=True),
        mem_limit=scene.given(fields, "mem_limit", r.size, 0),
        ports=_ports(scene, fields.get("ports")),
        privileged=scene.given(fields, "privileged", r.boolean, False),
        pull_policy=_pull_policy(scene, fields),
        read_only=scene.given(fields, "read_only", r.boolean, False),
        shm_size=scene.given(fields, "shm_size", r.size, 0),
        stop_grace_period_s=scene.get(
            fields, "stop_grace_period", lambda n: r.duration(n, "'stop_grace_period'")
        ),
        sysctls=_environment(scene, fields.get("sysctls"), free=True),
        ulimits=_ulimits(scene, fields.get("ulimits")),
        volumes=read_volumes(scene, fields.get("volumes")),
        span=field.key.span,
    )


def _pull_policy(scene: Scene, fields: dict[str, Field]) -> str:
    policy = scene.given(fields, "pull_policy", lambda n, w: scene.r.choice(n, w, _PULL), "")
    return "missing" if policy == "if_not_present" else policy


def _environment(scene: Scene, field: Field | None, *, free: bool = False) -> dict[str, Text]:
    """A mapping, or Compose's list of ``NAME=value``."""
    if field is None or not isinstance(field.value, Sequence):
        what = "" if field is None else f"'{field.key.text}'"
        return scene.labels(field, what) if free else scene.texts(field, what)
    found: dict[str, Text] = {}
    for item in field.value.items:
        text = scene.r.text(item, f"an entry of '{field.key.text}'")
        if text is None:
            continue
        name, sign, value = text.partition("=")
        if not sign:
            helps = [f"write {name}=VALUE; nothing is taken from the machine's own environment"]
            scene.r.fault("LS1013", f"'{text}' has no value", item, helps=helps)
        else:
            found[name] = value
    return found


def _pairs(scene: Scene, field: Field | None, sign: str) -> tuple[str, ...]:
    """A list of ``a:b``, or a mapping of a to b."""
    if field is None:
        return ()
    if isinstance(field.value, Mapping):
        found = scene.r.entries(field.value, f"'{field.key.text}'")
        texts = ((k, scene.r.text(f.value, f"'{k}'")) for k, f in found.items())
        return tuple(f"{key}{sign}{text}" for key, text in texts if text is not None)
    return scene.words({field.key.text: field}, field.key.text)


def _depends_on(scene: Scene, field: Field | None) -> tuple[str, ...]:
    """Names; Compose's long form too, whose condition is always that the service is up and well."""
    if field is None:
        return ()
    if not isinstance(field.value, Mapping):
        return scene.words({"depends_on": field}, "depends_on")
    keys = Keys(table="depends_on", known=("condition",))
    found = scene.r.names(field.value, "'depends_on'")
    for name, each in found.items():
        inner = scene.r.table(each.value, f"'{name}'", keys)
        scene.given(inner, "condition", lambda n, w: scene.r.choice(n, w, _CONDITIONS), "")
    return tuple(found)


def _ports(scene: Scene, field: Field | None) -> tuple[Text, ...]:
    if field is None:
        return ()
    found: list[Text] = []
    for item in scene.r.items(field.value, "'ports'"):
        text = scene.r.template(item, "a port")
        if text is None:
            continue
        if isinstance(text, str) and _PORT.fullmatch(text) is None:
            helps = ['write "8080:80", "127.0.0.1:8080:80" or "80/udp"']
            scene.r.fault("LS1013", f"'{text}' is not a port", item, helps=helps)
            continue
        found.append(text)
    return tuple(found)


def read_volumes(scene: Scene, field: Field | None) -> tuple[Text, ...]:
    """``source:target[:ro]`` entries."""
    if field is None:
        return ()
    found: list[Text] = []
    for item in scene.r.items(field.value, "'volumes'"):
        text = scene.r.template(item, "a volume")
        if text is None:
            continue
        if isinstance(text, str) and not _is_volume(text):
            helps = ['write "name:/path", "./folder:/path" or "name:/path:ro"']
            scene.r.fault("LS1013", f"'{text}' is not a volume", item, helps=helps)
            continue
        found.append(text)
    return tuple(found)


def _is_volume(text: str) -> bool:
    source, _, rest = text.partition(":")
    if not rest:
        return source.startswith("/")
    target, _, mode = rest.partition(":")
    return bool(source) and target.startswith("/") and mode in ("", "ro", "rw")


def _ulimits(scene: Scene, field: Field | None) -> dict[str, tuple[int, int]]:
    if field is None:
        return {}
    keys = Keys(table="ulimit", known=("soft", "hard"))
    limits: dict[str, tuple[int, int]] = {}
    for name, each in scene.r.entries(field.value, "'ulimits'").items():
        if isinstance(each.value, Mapping):
            inner = scene.r.table(each.value, f"'{name}'", keys)
            soft = scene.get(inner, "soft", lambda n: scene.r.integer(n, "'soft'", least=-1))
            hard = scene.get(inner, "hard", lambda n: scene.r.integer(n, "'hard'", least=-1))
        else:
            soft = hard = scene.r.integer(each.value, f"'{name}'", least=-1)
        if soft is not None or hard is not None:
            limits[name] = (
                hard if soft is None else soft,  # type: ignore[assignment]
                soft if hard is None else hard,
            )
    return limits


def _command(scene: Scene, field: Field | None) -> tuple[Text, ...] | None:
    """A command as a list; a text is run by the shell (Compose would split it)."""
    if field is None:
        return None
    what = f"'{field.key.text}'"
    if isinstance(field.value, Scalar):
        text = scene.r.template(field.value, what)
        return None if text is None else ("/bin/sh", "-c", text)
    texts = [scene.r.template(n, "a word") for n in scene.r.items(field.value, what)]
    return tuple(text for text in texts if text is not None)


def read_healthcheck(scene: Scene, node: Node) -> HealthcheckText | None:
    """Compose's ``healthcheck``."""
    r = scene.r
    fields = r.table(node, "'healthcheck'", HEALTHCHECK)
    if not isinstance(node, Mapping):
        return None
    if scene.given(fields, "disable", r.boolean, False):
        return HealthcheckText(test=("NONE",))
    if not r.require(fields, "test", "a healthcheck", node, "test: [CMD, PROGRAM]"):
        return None
    plain = HealthcheckText(test=())
    return HealthcheckText(
        test=_test(scene, fields["test"].value),
        interval_s=scene.given(fields, "interval", r.duration, plain.interval_s),
        timeout_s=scene.given(fields, "timeout", r.duration, plain.timeout_s),
        retries=scene.given(
            fields, "retries", lambda n, w: r.integer(n, w, least=1), plain.retries
        ),
        start_period_s=scene.given(fields, "start_period", r.duration, plain.start_period_s),
        start_interval_s=scene.given(fields, "start_interval", r.duration, plain.start_interval_s),
    )


def _test(scene: Scene, node: Node) -> tuple[Text, ...]:
    r = scene.r
    if not isinstance(node, Sequence):
        return ("CMD-SHELL", r.template(node, "'test'") or "")
    words = tuple(t for n in node.items if (t := r.template(n, "a word")) is not None)
    if not words or words[0] not in ("CMD", "CMD-SHELL", "NONE"):
        r.fault("LS1013", "'test' must begin with CMD, CMD-SHELL or NONE", node)
    return words
