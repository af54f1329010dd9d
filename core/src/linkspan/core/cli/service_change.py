"""``service create|update|scale|rollback``: change what is wanted, and wait until it is so."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from linkspan.core.cli import completing
from linkspan.core.cli.command import Seconds, Size, command
from linkspan.core.cli.common import complete_service, key_values
from linkspan.core.cli.credentials import registry_auth
from linkspan.core.cli.failure import Failure
from linkspan.core.cli.runflags import healthcheck
from linkspan.core.cli.runvalues import (
    environment,
    mount,
    split_port,
    split_volumes,
    split_words,
)
from linkspan.core.cli.service_parts import add_parts, change_parts, create_options, update_options
from linkspan.core.cli.service_watch import watch
from linkspan.core.cli.session import Session
from linkspan.core.client.short import segment

_NS: Final = 1_000_000_000

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
_ORDERS = click.Choice(["start-first", "stop-first"])
_ACTIONS = click.Choice(["pause", "continue", "rollback"])


def _many(*names: str, **settings: Any) -> Callable[..., Any]:
    return click.option(*names, multiple=True, **settings)


def _rollout_options(kind: str) -> list[Option]:
    actions = _ACTIONS if kind == "update" else click.Choice(["pause", "continue"])
    return [
        click.option(
            f"--{kind}-parallelism", type=int, metavar="N", help="Tasks at a time; 0: all"
        ),
        click.option(f"--{kind}-delay", type=Seconds(), metavar="TIME", help="Between tasks"),
        click.option(f"--{kind}-order", type=_ORDERS, help="New task first, or old one away first"),
        click.option(f"--{kind}-monitor", type=Seconds(), metavar="TIME", help="Watch a new task"),
        click.option(f"--{kind}-failure-action", type=actions, help="When a new task fails"),
        click.option(f"--{kind}-max-failure-ratio", type=float, metavar="R", help="Tolerated"),
    ]


_SPEC_OPTIONS: Final[Sequence[Option]] = (
    click.option("--replicas", type=int, metavar="N", help="How many tasks"),
    _many("-l", "--label", metavar="KEY=VALUE", help="A label of the service"),
    click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as"),
    click.option("-w", "--workdir", metavar="DIR", help="Working directory"),
    click.option("--hostname", metavar="NAME", help="Host name of its containers"),
    click.option("-t", "--tty", is_flag=True, default=None, help="Give it a terminal"),
    click.option("--oom-score-adj", type=int, metavar="N", help="Whom the kernel kills first"),
    click.option("--endpoint-mode", type=click.Choice(["vip", "dnsrr"]), help="How it is found"),
    click.option(
        "--replicas-max-per-node", type=int, metavar="N", help="At most so many on a node"
    ),
    click.option("--max-concurrent", type=int, metavar="N", help="Of a job: so many at a time"),
    click.option("--log-driver", metavar="NAME", help="Where its output goes"),
    _many("--log-opt", metavar="KEY=VALUE", help="For the log driver"),
    _many("--cap-add", metavar="NAME", help="Add a capability"),
    _many("--cap-drop", metavar="NAME", help="Drop a capability"),
    click.option("--entrypoint", metavar="PROGRAM", help="Instead of the image's entrypoint"),
    click.option("--no-resolve-image", is_flag=True, hidden=True, help="As it is anyway"),
    click.option("--read-only", is_flag=True, default=None, help="Root file system not writable"),
    click.option("--init", is_flag=True, default=None, help="A small init that reaps processes"),
    click.option("--stop-signal", metavar="NAME", help="Signal that stops a task"),
    click.option("--stop-grace-period", type=Seconds(), metavar="TIME", help="Until SIGKILL"),
    click.option("--limit-cpu", type=float, metavar="N", help="CPUs: 0.5, 2"),
    click.option("--limit-pids", type=int, metavar="N", help="How many processes"),
    click.option("--limit-memory", type=Size(), metavar="BYTES", help="Memory limit: 512m"),
    click.option("--reserve-cpu", type=float, metavar="N", help="CPUs that a node must have free"),
    click.option("--reserve-memory", type=Size(), metavar="BYTES", help="Memory it must have free"),
    click.option(
        "--restart-condition",
        type=click.Choice(["none", "on-failure", "any"]),
        help="When to replace",
    ),
    click.option("--restart-delay", type=Seconds(), metavar="TIME", help="Before a replacement"),
    click.option("--restart-max-attempts", type=int, metavar="N", help="Then give up"),
    click.option("--restart-window", type=Seconds(), metavar="TIME", help="Attempts count in this"),
    *_rollout_options("update"),
    *_rollout_options("rollback"),
    click.option("--health-cmd", metavar="COMMAND", help="Health check, run by a shell"),
    click.option("--health-interval", type=Seconds(), metavar="TIME", help="Between checks"),
    click.option("--health-timeout", type=Seconds(), metavar="TIME", help="For one check"),
    click.option("--health-retries", type=int, metavar="N", help="Failures until unhealthy"),
    click.option("--health-start-interval", type=Seconds(), metavar="TIME", help="While starting"),
    click.option("--health-start-period", type=Seconds(), metavar="TIME", help="Time to start up"),
    click.option("--no-healthcheck", is_flag=True, help="Without the image's health check"),
    click.option("-d", "--detach", is_flag=True, help="Do not wait until it is so"),
    click.option("--wait-timeout", type=Seconds(), metavar="TIME", help="Wait no longer than this"),
    click.option("--with-registry-auth", is_flag=True, help="Send our registry login along"),
)


def _spec_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SPEC_OPTIONS):
        function = option(function)
    return function


@command(
    "create",
    "Create a service, and wait until all its tasks are well.",
    examples=[
        "linkspan service create --name web --replicas 2 -p 8080:80 nginx",
        "linkspan service create --name db --mount type=volume,src=data,dst=/data db:1",
        "linkspan service create --name web --health-cmd 'wget -qO- localhost' "
        "--update-order start-first --update-failure-action rollback web:1",
    ],
    more=["linkspan service ps", "linkspan service update"],
    context_settings={"allow_interspersed_args": False},
)
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND [ARG]...]")
@click.option("--name", help="Its name; made up if none is given")
@click.option(
    "--mode",
    type=click.Choice(["replicated", "global", "replicated-job", "global-job"]),
    default="replicated",
    help="How many",
)
@_many("-p", "--publish", metavar="[HOST:]PORT[/udp]", help="Publish a port")
@_many("--mount", metavar="type=…,src=…,dst=…", help="Mount a volume or a folder")
@_many("--volume", metavar="SOURCE:TARGET[:ro]", help="The same, short")
@_many("-e", "--env", metavar="NAME[=VALUE]", help="Environment")
@_many(
    "--env-file", metavar="FILE", shell_complete=completing.files, help="Environment from a file"
)
@create_options
@_spec_options
def create(session: Session, image: str, arguments: tuple[str, ...], **options: Any) -> int:
    """Create a service."""
    spec: dict[str, Any] = {
        "Name": options["name"] or "",
        "Labels": {},
        "Mode": {_MODES[options["mode"]]: {}},
        "TaskTemplate": {"ContainerSpec": {"Image": image}},
        "EndpointSpec": {"Mode": "vip", "Ports": [service_port(p) for p in options["publish"]]},
    }
    if options["mode"].startswith("global") and options["replicas"] is not None:
        raise click.BadParameter("a global service has one task a node", param_hint="--replicas")
    container = spec["TaskTemplate"]["ContainerSpec"]
    if arguments:
        container["Args"] = list(arguments)
    container["Mounts"] = [*map(mount, options["mount"]), *map(_mount_of, options["volume"])]
    container["Env"] = environment(options["env"], options["env_file"])
    apply_options(spec, options)
    add_parts(session.api, spec, options)
    headers = {"X-Registry-Auth": registry_auth(image)} if options["with_registry_auth"] else {}
    api = session.api
    with api.open("POST", "/services/create", None, spec, headers=headers) as answer:
        made = answer.json()
    for warning in made.get("Warnings") or ():
        session.terminal.note(f"{session.terminal.painted_sign('warned')} {warning}")
    session.terminal.print(made["ID"])
    if options["detach"]:
        return 0
    return watch(session, made["ID"], options["wait_timeout"], since_version=None)


@command(
    "update",
    "Change a service, and wait until all its tasks are exchanged.",
    examples=[
        "linkspan service update --image web:2 web",
        "linkspan service update --env-add MODE=fast --env-rm DEBUG web",
        "linkspan service update --force web",
    ],
    more=["linkspan service rollback", "linkspan service ps"],
)
@click.argument("service", shell_complete=complete_service)
@click.option("--image", help="Another image")
@click.option("--args", "arguments", metavar="TEXT", help="Other arguments")
@click.option("--force", is_flag=True, help="New tasks although nothing has changed")
@click.option("--rollback", "roll_back", is_flag=True, help="Undo the last update")
@_many("--publish-add", metavar="[HOST:]PORT", help="Publish a port")
@_many("--publish-rm", metavar="PORT", help="Publish it no more, by its port inside")
@_many("--env-add", metavar="NAME=VALUE", help="Add or change a variable")
@_many("--env-rm", metavar="NAME", help="Remove a variable")
@_many("--label-add", metavar="KEY=VALUE", help="Add or change a label")
@_many("--label-rm", metavar="KEY", help="Remove a label")
@update_options
@_many("--mount-add", metavar="type=…", help="Add a mount")
@_many("--mount-rm", metavar="TARGET", help="Remove a mount")
@_spec_options
def update(session: Session, service: str, **options: Any) -> int:
    """Change a service."""
    if options["roll_back"]:
        return _roll_back(session, service, options["detach"], options["wait_timeout"])
    api = session.api
    found = api.get(f"/services/{segment(service)}")
    spec = found["Spec"]
    template = spec["TaskTemplate"]
    container = template["ContainerSpec"]
    if options["image"]:
        container["Image"] = options["image"]
    if options["arguments"] is not None:
        container["Args"] = split_words(options["arguments"], "--args")
    if options["force"]:
        template["ForceUpdate"] = int(template.get("ForceUpdate") or 0) + 1
    _change_lists(spec, options)
    change_parts(api, spec, options)
    apply_options(spec, options)
    return _send(session, found, spec, options, auth_for=container["Image"])


def _change_lists(spec: dict[str, Any], options: dict[str, Any]) -> None:
    container = spec["TaskTemplate"]["ContainerSpec"]
    added = environment(options["env_add"], ())
    gone = {*options["env_rm"], *(pair.partition("=")[0] for pair in added)}
    kept = [p for p in container.get("Env") or () if p.partition("=")[0] not in gone]
    container["Env"] = [*kept, *added]
    labels = {k: v for k, v in (spec.get("Labels") or {}).items() if k not in options["label_rm"]}
    spec["Labels"] = labels | key_values(options["label_add"], "--label-add")
    endpoint = spec.setdefault("EndpointSpec", {})
    closed = {(port, protocol) for _, _, port, protocol in map(split_port, options["publish_rm"])}
    ports = [
        port
        for port in endpoint.get("Ports") or ()
        if (str(port.get("TargetPort")), port.get("Protocol", "tcp")) not in closed
    ]
    endpoint["Ports"] = [*ports, *map(service_port, options["publish_add"])]
    targets = set(options["mount_rm"])
    mounts = [m for m in container.get("Mounts") or () if m.get("Target") not in targets]
    container["Mounts"] = [*mounts, *map(mount, options["mount_add"])]


def _send(
    session: Session, found: Any, spec: dict[str, Any], options: dict[str, Any], auth_for: str = ""
) -> int:
    api = session.api
    version = found["Version"]["Index"]
    headers = (
        {"X-Registry-Auth": registry_auth(auth_for)} if options.get("with_registry_auth") else {}
    )
    path = f"/services/{found['ID']}/update"
    with api.open("POST", path, {"version": version}, spec, headers=headers) as answer:
        changed = answer.json() or {}
    for warning in changed.get("Warnings") or ():
        session.terminal.note(f"{session.terminal.painted_sign('warned')} {warning}")
    session.terminal.print(found["Spec"]["Name"])
    if options["detach"]:
        return 0
    return watch(session, found["ID"], options["wait_timeout"], since_version=version)


@command(
    "scale",
    "Change how many tasks services have, and wait until they run.",
    examples=["linkspan service scale web=5", "linkspan service scale web=5 worker=2"],
)
@click.argument("counts", nargs=-1, required=True, metavar="SERVICE=N...")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is so")
@click.option("--wait-timeout", type=Seconds(), metavar="TIME", help="Wait no longer than this")
def scale(
    session: Session, counts: tuple[str, ...], detach: bool, wait_timeout: float | None
) -> int:
    """Change the number of tasks."""
    wanted: dict[str, int] = {}
    for text in counts:
        name, equals, number = text.partition("=")
        if not equals or not number.isdigit():
            raise click.BadParameter(
                f"'{text}' is not of the form SERVICE=N", param_hint="SERVICE=N"
            )
        wanted[name] = int(number)
    status = 0
    for name, replicas in wanted.items():
        found = session.api.get(f"/services/{segment(name)}")
        spec = found["Spec"]
        if "Replicated" not in (spec.get("Mode") or {}):
            raise Failure(f"service '{name}' has one task a node and cannot be scaled")
        spec["Mode"]["Replicated"]["Replicas"] = replicas
        options = {"detach": detach, "wait_timeout": wait_timeout}
        status = _send(session, found, spec, options) or status
    return status


@command(
    "rollback",
    "Undo the last update of a service, and wait until it is undone.",
    examples=["linkspan service rollback web"],
    more=["linkspan service update"],
)
@click.argument("service", shell_complete=complete_service)
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it is so")
@click.option("--wait-timeout", type=Seconds(), metavar="TIME", help="Wait no longer than this")
def rollback(session: Session, service: str, detach: bool, wait_timeout: float | None) -> int:
    """Undo the last update."""
    return _roll_back(session, service, detach, wait_timeout)


def _roll_back(session: Session, service: str, detach: bool, timeout_s: float | None) -> int:
    api = session.api
    found = api.get(f"/services/{segment(service)}")
    query = {"version": found["Version"]["Index"], "rollback": "previous"}
    api.post(f"/services/{found['ID']}/update", query, found["Spec"])
    session.terminal.print(found["Spec"]["Name"])
    if detach:
        return 0
    version = found["Version"]["Index"]
    return watch(session, found["ID"], timeout_s, since_version=version, rolling_back=True)


def service_port(text: str) -> dict[str, Any]:
    """An API EndpointPortConfig of ``8080:80`` or ``published=8080,target=80,mode=host``."""
    if "=" in text:
        pairs = dict(part.partition("=")[::2] for part in text.split(","))
        if not pairs.get("target", "").isdigit():
            raise click.BadParameter(f"'{text}' has no target", param_hint="--publish")
        return {
            "TargetPort": int(pairs["target"]),
            "PublishedPort": int(pairs.get("published") or 0),
            "Protocol": pairs.get("protocol", "tcp"),
            "PublishMode": pairs.get("mode", "ingress"),
        }
    address, host, inside, protocol = split_port(text)
    if address or "-" in inside or "-" in host:
        reason = f"'{text}': a service publishes single ports on all addresses"
        raise click.BadParameter(reason, param_hint="--publish")
    return {
        "TargetPort": int(inside),
        "PublishedPort": int(host or 0),
        "Protocol": protocol,
        "PublishMode": "ingress",
    }


def _mount_of(text: str) -> dict[str, Any]:
    anonymous, binds = split_volumes([text])
    if anonymous:
        return {"Type": "volume", "Target": text}
    source, target, *options = binds[0].split(":")
    kind = "bind" if source.startswith("/") else "volume"
    return {"Type": kind, "Source": source, "Target": target, "ReadOnly": "ro" in options}


_MODES: Final = {
    "replicated": "Replicated",
    "global": "Global",
    "replicated-job": "ReplicatedJob",
    "global-job": "GlobalJob",
}


def _mode(mode: dict[str, Any], options: dict[str, Any]) -> None:
    """How many tasks; of a job, how many in all and at a time."""
    replicas, concurrent = options["replicas"], options["max_concurrent"]
    if "ReplicatedJob" in mode:
        job = mode["ReplicatedJob"]
        if replicas is not None:
            job["TotalCompletions"] = replicas
        if concurrent is not None:
            job["MaxConcurrent"] = concurrent
        return
    if concurrent is not None:
        raise click.BadParameter("it is for mode replicated-job", param_hint="--max-concurrent")
    if replicas is not None and "Replicated" not in mode:
        raise click.BadParameter("the service has one task a node", param_hint="--replicas")
    if "Replicated" in mode:
        kept = mode["Replicated"].get("Replicas", 1)
        mode["Replicated"]["Replicas"] = kept if replicas is None else replicas


def apply_options(spec: dict[str, Any], options: dict[str, Any]) -> None:
    """Write the options that were given into an API ServiceSpec; leave the rest as it is."""
    template = spec["TaskTemplate"]
    container = template["ContainerSpec"]
    _mode(spec["Mode"], options)
    spec["Labels"] = (spec.get("Labels") or {}) | key_values(options["label"], "--label")
    if options["replicas_max_per_node"] is not None:
        template.setdefault("Placement", {})["MaxReplicas"] = options["replicas_max_per_node"]
    if options["entrypoint"] is not None:
        container["Command"] = split_words(options["entrypoint"], "--entrypoint")
    if options["endpoint_mode"]:
        spec.setdefault("EndpointSpec", {})["Mode"] = options["endpoint_mode"]
    if options["log_driver"] or options["log_opt"]:
        driver = template.setdefault("LogDriver", {})
        driver["Name"] = options["log_driver"] or driver.get("Name", "")
        driver["Options"] = (driver.get("Options") or {}) | key_values(
            options["log_opt"], "--log-opt"
        )
    if options["cap_add"] or options["cap_drop"]:
        _capabilities(container, options)
    for option, key in (
        ("user", "User"),
        ("workdir", "Dir"),
        ("hostname", "Hostname"),
        ("read_only", "ReadOnly"),
        ("init", "Init"),
        ("stop_signal", "StopSignal"),
        ("tty", "TTY"),
        ("oom_score_adj", "OomScoreAdj"),
    ):
        if options[option] is not None:
            container[key] = options[option]
    if options["stop_grace_period"] is not None:
        container["StopGracePeriod"] = _ns(options["stop_grace_period"])
    health = healthcheck(options)
    if health is not None:
        before = {} if options["no_healthcheck"] else container.get("Healthcheck") or {}
        container["Healthcheck"] = before | health
    _resources(template, options)
    _restart(template, options)
    for kind, key in (("update", "UpdateConfig"), ("rollback", "RollbackConfig")):
        _rollout(spec, options, kind, key)


def _capabilities(container: dict[str, Any], options: dict[str, Any]) -> None:
    """Add and drop capabilities as Docker does: the one takes the other back, and adding goes first."""
    added, dropped = (
        {_capability(name): True for name in container.get(key) or ()}
        for key in ("CapabilityAdd", "CapabilityDrop")
    )
    to_add, to_drop = (
        dict.fromkeys(map(_capability, options[name])) for name in ("cap_add", "cap_drop")
    )
    for wanted, known in ((to_add, added), (to_drop, dropped)):
        if "RESET" in wanted:
            del wanted["RESET"]
            known.clear()
    for name in to_drop.keys() - to_add.keys():
        if not added.pop(name, False):
            dropped[name] = True
    for name in to_add:
        if not dropped.pop(name, False):
            added[name] = True
    container["CapabilityAdd"], container["CapabilityDrop"] = sorted(added), sorted(dropped)


def _capability(name: str) -> str:
    upper = name.upper()
    return upper if upper in ("ALL", "RESET") or upper.startswith("CAP_") else f"CAP_{upper}"


def _resources(template: dict[str, Any], options: dict[str, Any]) -> None:
    for prefix, key in (("limit", "Limits"), ("reserve", "Reservations")):
        cpu, memory = options[f"{prefix}_cpu"], options[f"{prefix}_memory"]
        pids = options["limit_pids"] if prefix == "limit" else None
        if cpu is None and memory is None and pids is None:
            continue
        target = template.setdefault("Resources", {}).setdefault(key, {})
        if cpu is not None:
            target["NanoCPUs"] = round(cpu * _NS)
        if memory is not None:
            target["MemoryBytes"] = memory
        if pids is not None:
            target["Pids"] = pids


def _restart(template: dict[str, Any], options: dict[str, Any]) -> None:
    values = {
        "Condition": options["restart_condition"],
        "Delay": _ns(options["restart_delay"]),
        "MaxAttempts": options["restart_max_attempts"],
        "Window": _ns(options["restart_window"]),
    }
    given = {key: value for key, value in values.items() if value is not None}
    if given:
        template["RestartPolicy"] = (template.get("RestartPolicy") or {}) | given


_ROLLOUT: Final = {
    "Parallelism": 1,
    "FailureAction": "pause",
    "Monitor": 5 * _NS,
    "Order": "stop-first",
}
"""What an update or a rollback is where nobody has said anything."""


def _rollout(spec: dict[str, Any], options: dict[str, Any], kind: str, key: str) -> None:
    values = {
        "Parallelism": options[f"{kind}_parallelism"],
        "Delay": _ns(options[f"{kind}_delay"]),
        "Order": options[f"{kind}_order"],
        "Monitor": _ns(options[f"{kind}_monitor"]),
        "FailureAction": options[f"{kind}_failure_action"],
        "MaxFailureRatio": options[f"{kind}_max_failure_ratio"],
    }
    given = {name: value for name, value in values.items() if value is not None}
    if given:
        spec[key] = (spec.get(key) or _ROLLOUT) | given


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _NS)
