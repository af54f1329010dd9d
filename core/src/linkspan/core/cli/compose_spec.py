"""A service of a Compose file as the API's ServiceSpec (Compose Specification, "Deploy")."""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from linkspan.core.cli.compose_file import mapping, pairs, text, texts, wrong
from linkspan.core.cli.failure import Failure
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import parse_duration, parse_size

NAMESPACE: Final = "com.docker.stack.namespace"
"""Label of everything that belongs to a stack; its value is the stack's name."""

IGNORED: Final = (
    *("build", "cgroup_parent", "container_name", "depends_on", "develop", "devices", "expose"),
    *("external_links", "links", "network_mode", "pid", "platform", "privileged", "profiles"),
    *("pull_policy", "restart", "scale", "security_opt", "shm_size", "tmpfs", "userns_mode"),
    *("ipc", "mem_limit", "cpus", "volumes_from", "attach", "annotations"),
)
"""Keys of Compose that mean nothing for a service of a cluster, as in Docker."""
_KNOWN: Final = (
    *("image", "command", "entrypoint", "environment", "env_file", "labels", "deploy", "ports"),
    *("volumes", "networks", "secrets", "configs", "healthcheck", "hostname", "user", "init"),
    *("working_dir", "stop_grace_period", "stop_signal", "tty", "stdin_open", "read_only"),
    *("cap_add", "cap_drop", "dns", "dns_search", "dns_opt", "extra_hosts", "sysctls", "ulimits"),
    *("logging", "group_add", "domainname", "x-base"),
)


class Reader:
    """The values of one mapping of the file, each with the place to name when it is wrong."""

    def __init__(self, values: Any, where: str) -> None:
        self.values = mapping(values, where)
        self.where = where

    def at(self, key: str) -> str:
        """The place of a key."""
        return f"{self.where}.{key}"

    def below(self, key: str) -> "Reader":
        """A mapping in this one."""
        return Reader(self.values.get(key), self.at(key))

    def text(self, key: str) -> str:
        """A text; empty if it is not there."""
        value = self.values.get(key)
        return "" if value is None else text(value, self.at(key))

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        return texts(self.values.get(key), self.at(key))

    def flag(self, key: str) -> bool | None:
        """A truth; None if it is not there."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise wrong(self.at(key), f"'{value}' is neither true nor false")

    def number(self, key: str) -> int | None:
        """A whole number; None if it is not there."""
        value = self.values.get(key)
        if value is None:
            return None
        if not re.fullmatch(r"-?\d+", str(value)):
            raise wrong(self.at(key), f"'{value}' is no whole number")
        return int(value)

    def ratio(self, key: str) -> float | None:
        """A number; None if it is not there."""
        value = self.values.get(key)
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError) as exc:
            raise wrong(self.at(key), f"'{value}' is no number") from exc

    def nanoseconds(self, key: str) -> int | None:
        """A duration; None if it is not there."""
        value = self.text(key)
        try:
            return round(parse_duration(value) * 1e9) if value else None
        except InvalidArgument as exc:
            raise wrong(self.at(key), exc.message, exc.help) from exc

    def size(self, key: str) -> int | None:
        """Bytes; None if it is not there."""
        value = self.text(key)
        try:
            return parse_size(value) if value else None
        except InvalidArgument as exc:
            raise wrong(self.at(key), exc.message, exc.help) from exc

    def only(self, *known: str) -> None:
        """Refuse any other key.

        Raises:
            Failure: There is one.
        """
        from difflib import get_close_matches

        for key in self.values:
            if key not in known and not key.startswith("x-"):
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else ""
                raise wrong(self.at(key), "unknown key", hint)


def _given(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value not in (None, "", [], {})}


class Stack:
    """What a service needs to know of the rest of its stack.

    Attributes:
        name: Of the stack.
        networks: Name in the file → name in the cluster.
        volumes: Name in the file → (name, driver, driver's options, labels), None for an external one.
        objects: ``secrets`` or ``configs`` → name in the file → name in the cluster.
    """

    def __init__(self, name: str, document: dict[str, Any], file: str) -> None:
        self.name = name
        self.file = file
        self.networks = {
            n: self.full_name("networks", n, b) for n, b in document["networks"].items()
        }
        self.volumes = document["volumes"]
        self.objects = {
            kind: {n: self.full_name(kind, n, b) for n, b in document[kind].items()}
            for kind in ("secrets", "configs")
        }

    def full_name(self, section: str, name: str, body: Any) -> str:
        """The name in the cluster: of its own, its own because it is external, or with the stack's before."""
        reader = Reader(body, f"{self.file}: {section}.{name}")
        external = reader.values.get("external")
        own = reader.text("name") or (
            text(external["name"], reader.at("external"))
            if isinstance(external, dict) and external.get("name")
            else ""
        )
        return own or (name if external else f"{self.name}_{name}")

    def labels(self, more: dict[str, str | None] | None = None) -> dict[str, str]:
        """Labels with the stack's own."""
        return {**{k: v or "" for k, v in (more or {}).items()}, NAMESPACE: self.name}


def service_spec(name: str, body: Any, stack: Stack) -> dict[str, Any]:
    """The ServiceSpec of a service; secrets and configs have names, their ids are filled in later.

    Raises:
        Failure: Something in it is wrong.
    """
    service = Reader(body, f"{stack.file}: services.{name}")
    service.only(*_KNOWN, *IGNORED)
    if not service.text("image"):
        raise wrong(
            service.where, "there is no image", "a cluster builds none: name one that is built"
        )
    deploy = service.below("deploy")
    deploy.only(
        *("mode", "replicas", "labels", "resources", "restart_policy", "update_config"),
        *("rollback_config", "placement", "endpoint_mode"),
    )
    template = {
        "ContainerSpec": _container(name, service, stack),
        "Resources": _resources(deploy.below("resources")),
        "RestartPolicy": _restart(deploy.below("restart_policy")),
        "Placement": _placement(deploy.below("placement")),
        "Networks": _networks(name, service, stack),
        "LogDriver": _logging(service.below("logging")),
    }
    spec = {
        "Name": f"{stack.name}_{name}",
        "Labels": stack.labels(pairs(deploy.values.get("labels"), deploy.at("labels"))),
        "TaskTemplate": _given(template),
        "Mode": _mode(deploy),
        "UpdateConfig": _policy(deploy.below("update_config")),
        "RollbackConfig": _policy(deploy.below("rollback_config")),
        "EndpointSpec": _given({"Mode": deploy.text("endpoint_mode"), "Ports": _ports(service)}),
    }
    return {key: value for key, value in spec.items() if value or key == "EndpointSpec"}


def _container(name: str, service: Reader, stack: Stack) -> dict[str, Any]:
    base = Path(service.text("x-base") or ".")
    dns = {key: service.texts(f"dns{ext}") for key, ext in _DNS.items()}
    found = {
        "Image": service.text("image"),
        "Labels": stack.labels(pairs(service.values.get("labels"), service.at("labels"))),
        "Command": _words(service, "entrypoint"),
        "Args": _words(service, "command"),
        "Hostname": service.text("hostname"),
        "Env": _environment(service, base),
        "Dir": service.text("working_dir"),
        "User": service.text("user"),
        "Groups": service.texts("group_add"),
        "TTY": service.flag("tty"),
        "OpenStdin": service.flag("stdin_open"),
        "ReadOnly": service.flag("read_only"),
        "Init": service.flag("init"),
        "StopSignal": service.text("stop_signal"),
        "StopGracePeriod": service.nanoseconds("stop_grace_period"),
        "Mounts": [_mount(item, service, stack, base) for item in _list(service, "volumes")],
        "Healthcheck": _health(service.below("healthcheck")),
        "Hosts": _hosts(service),
        "DNSConfig": _given(dns),
        "Secrets": _objects("secrets", service, stack),
        "Configs": _objects("configs", service, stack),
        "CapabilityAdd": service.texts("cap_add"),
        "CapabilityDrop": service.texts("cap_drop"),
        "Sysctls": {k: v or "" for k, v in pairs(service.values.get("sysctls"), name).items()},
        "Ulimits": [
            _ulimit(service.below("ulimits"), key) for key in service.below("ulimits").values
        ],
    }
    return _given(found)


_DNS: Final = {"Nameservers": "", "Search": "_search", "Options": "_opt"}


def _list(reader: Reader, key: str) -> list[Any]:
    value = reader.values.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong(reader.at(key), "a list is expected")
    return value


def _words(service: Reader, key: str) -> list[str]:
    value = service.values.get(key)
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as exc:
            raise wrong(service.at(key), f"its quotes do not match: {exc}") from exc
    return service.texts(key)


def _environment(service: Reader, base: Path) -> list[str]:
    from linkspan.core.cli.runvalues import lines_of

    files = [str(base / file) for file in service.texts("env_file")]
    found: dict[str, str | None] = {}
    for line in lines_of(files, service.at("env_file")):
        name, equals, value = line.partition("=")
        found[name] = value if equals else None
    found |= pairs(service.values.get("environment"), service.at("environment"))
    values = {k: os.environ.get(k) if v is None else v for k, v in found.items()}
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def _hosts(service: Reader) -> list[str]:
    """``address name`` lines, as in /etc/hosts."""
    value = service.values.get("extra_hosts")
    if isinstance(value, dict):
        entries = [(str(name), a) for name, ip in value.items() for a in texts(ip, service.where)]
    else:
        split = (re.split(r"[:=]", item, maxsplit=1) for item in service.texts("extra_hosts"))
        entries = [(parts[0], parts[1] if len(parts) > 1 else "") for parts in split]
    for name, address in entries:
        if not address:
            raise wrong(service.at("extra_hosts"), f"'{name}' has no address", "write NAME:IP")
    return [f"{address.strip('[]')} {name}" for name, address in entries]


def _health(health: Reader) -> dict[str, Any]:
    health.only(
        *("test", "interval", "timeout", "retries", "start_period", "start_interval", "disable")
    )
    if health.flag("disable"):
        return {"Test": ["NONE"]}
    test = health.values.get("test")
    return _given(
        {
            "Test": ["CMD-SHELL", test] if isinstance(test, str) else health.texts("test"),
            "Interval": health.nanoseconds("interval"),
            "Timeout": health.nanoseconds("timeout"),
            "StartPeriod": health.nanoseconds("start_period"),
            "StartInterval": health.nanoseconds("start_interval"),
            "Retries": health.number("retries"),
        }
    )


def _mount(item: Any, service: Reader, stack: Stack, base: Path) -> dict[str, Any]:
    if isinstance(item, str):
        source, _, rest = item.partition(":")
        target, _, mode = rest.partition(":")
        if not rest:
            return {"Type": "volume", "Target": source}
        kind = "bind" if source.startswith((".", "/", "~")) else "volume"
        found: dict[str, Any] = {"Type": kind, "Source": source, "Target": target}
        if "ro" in mode.split(","):
            found["ReadOnly"] = True
    else:
        long = Reader(item, service.at("volumes"))
        long.only(
            *("type", "source", "target", "read_only", "consistency"),
            *("bind", "volume", "tmpfs", "image"),
        )
        size = long.below("tmpfs").size("size")
        volume = long.below("volume")
        found = _given(
            {
                "Type": long.text("type") or "volume",
                "Source": long.text("source"),
                "Target": long.text("target"),
                "ReadOnly": long.flag("read_only"),
                "BindOptions": _given({"Propagation": long.below("bind").text("propagation")}),
                "VolumeOptions": _given(
                    {"NoCopy": volume.flag("nocopy"), "Subpath": volume.text("subpath")}
                ),
                "ImageOptions": _given({"Subpath": long.below("image").text("subpath")}),
                "TmpfsOptions": _given({"SizeBytes": size}),
            }
        )
    if not found.get("Target"):
        raise wrong(service.at("volumes"), f"'{item}' has no target")
    if found["Type"] == "bind":
        found["Source"] = str((base / Path(found["Source"]).expanduser()).resolve())
    elif found["Type"] == "volume" and found.get("Source"):
        _named_volume(found, service, stack)
    return found


def _named_volume(found: dict[str, Any], service: Reader, stack: Stack) -> None:
    name = found["Source"]
    if name not in stack.volumes:
        raise wrong(
            service.at("volumes"),
            f"the volume '{name}' is not declared",
            f"volumes: {{{name}: {{}}}}        at the top of the file",
        )
    volume = Reader(stack.volumes[name], f"{stack.file}: volumes.{name}")
    found["Source"] = stack.full_name("volumes", name, volume.values)
    if volume.values.get("external"):
        return
    options = {k: v or "" for k, v in pairs(volume.values.get("driver_opts"), volume.where).items()}
    driver = _given({"Name": volume.text("driver"), "Options": options})
    labels = stack.labels(pairs(volume.values.get("labels"), volume.at("labels")))
    more = _given({"DriverConfig": driver, "Labels": labels})
    found["VolumeOptions"] = {**found.get("VolumeOptions", {}), **more}


def _objects(kind: str, service: Reader, stack: Stack) -> list[dict[str, Any]]:
    """References to secrets or configs, by name."""
    found = []
    for item in _list(service, kind):
        long = Reader(item if isinstance(item, dict) else {"source": item}, service.at(kind))
        long.only("source", "target", "uid", "gid", "mode")
        source = long.text("source")
        full = stack.objects[kind].get(source)
        if full is None:
            raise wrong(service.at(kind), f"'{source}' is not declared", f"at the top: {kind}: …")
        target = long.text("target") or (source if kind == "secrets" else f"/{source}")
        mode = long.text("mode")
        file = {
            "Name": target,
            "UID": long.text("uid") or "0",
            "GID": long.text("gid") or "0",
            "Mode": _mode_bits(mode, long) if mode else 0o444,
        }
        found.append({"File": file, f"{kind[:-1].title()}Name": full})
    return found


def _mode_bits(mode: str, reader: Reader) -> int:
    """YAML has read ``0440`` as a number already; in quotes it is still octal digits."""
    if not mode.isdigit():
        raise wrong(reader.at("mode"), f"'{mode}' is no file mode", "write 0440")
    return int(mode, 8) if isinstance(reader.values["mode"], str) else int(mode)


def _ulimit(limits: Reader, name: str) -> dict[str, Any]:
    value = limits.values[name]
    if isinstance(value, dict):
        both = limits.below(name)
        return {"Name": name, "Soft": both.number("soft") or 0, "Hard": both.number("hard") or 0}
    number = limits.number(name) or 0
    return {"Name": name, "Soft": number, "Hard": number}


def _resources(resources: Reader) -> dict[str, Any]:
    resources.only("limits", "reservations")
    found = {}
    for key, name in (("limits", "Limits"), ("reservations", "Reservations")):
        part = resources.below(key)
        generic = [
            _generic_resource(Reader(item, part.at("generic_resources")))
            for item in (_list(part, "generic_resources") if key == "reservations" else ())
        ]
        more = ("generic_resources",) if key == "reservations" else ()
        part.only("cpus", "memory", "pids", *more)
        cpus = part.ratio("cpus")
        found[name] = _given(
            {
                "NanoCPUs": round(cpus * 1e9) if cpus else None,
                "MemoryBytes": part.size("memory"),
                "Pids": part.number("pids"),
                "GenericResources": generic,
            }
        )
    return _given(found)


def _generic_resource(item: Reader) -> dict[str, Any]:
    item.only("discrete_resource_spec")
    counted = item.below("discrete_resource_spec")
    counted.only("kind", "value")
    return {
        "DiscreteResourceSpec": {"Kind": counted.text("kind"), "Value": counted.number("value")}
    }


def _restart(restart: Reader) -> dict[str, Any]:
    restart.only("condition", "delay", "max_attempts", "window")
    return _given(
        {
            "Condition": restart.text("condition"),
            "Delay": restart.nanoseconds("delay"),
            "MaxAttempts": restart.number("max_attempts"),
            "Window": restart.nanoseconds("window"),
        }
    )


def _placement(placement: Reader) -> dict[str, Any]:
    placement.only("constraints", "preferences", "max_replicas_per_node")
    spread = [
        {"Spread": {"SpreadDescriptor": Reader(item, placement.at("preferences")).text("spread")}}
        for item in _list(placement, "preferences")
    ]
    return _given(
        {
            "Constraints": placement.texts("constraints"),
            "Preferences": spread,
            "MaxReplicas": placement.number("max_replicas_per_node"),
        }
    )


def _networks(name: str, service: Reader, stack: Stack) -> list[dict[str, Any]]:
    """Where it joins: its own name is an alias everywhere; ``default`` if nothing is said."""
    value = service.values.get("networks")
    names = dict.fromkeys(texts(value, service.where)) if not isinstance(value, dict) else value
    found = []
    for key, body in (names or {"default": None}).items():
        if key not in stack.networks:
            raise wrong(service.at("networks"), f"the network '{key}' is not declared")
        settings = Reader(body, f"{service.at('networks')}.{key}")
        aliases = [name, *settings.texts("aliases")]
        found.append({"Target": stack.networks[key], "Aliases": aliases})
    return found


def _logging(logging: Reader) -> dict[str, Any]:
    options = {k: v or "" for k, v in pairs(logging.values.get("options"), logging.where).items()}
    return _given({"Name": logging.text("driver"), "Options": options})


def _mode(deploy: Reader) -> dict[str, Any]:
    mode, replicas = deploy.text("mode") or "replicated", deploy.number("replicas")
    if mode == "global":
        if replicas is not None:
            raise wrong(deploy.at("replicas"), "a global service has one task a node")
        return {"Global": {}}
    if mode != "replicated":
        raise wrong(deploy.at("mode"), f"'{mode}' is neither replicated nor global")
    return {"Replicated": {"Replicas": 1 if replicas is None else replicas}}


def _policy(policy: Reader) -> dict[str, Any]:
    policy.only("parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order")
    if not policy.values:
        return {}
    parallelism = policy.number("parallelism")
    found = _given(
        {
            "Delay": policy.nanoseconds("delay"),
            "FailureAction": policy.text("failure_action"),
            "Monitor": policy.nanoseconds("monitor"),
            "MaxFailureRatio": policy.ratio("max_failure_ratio"),
            "Order": policy.text("order"),
        }
    )
    return {"Parallelism": 1 if parallelism is None else parallelism, **found}


def _ports(service: Reader) -> list[dict[str, Any]]:
    from linkspan.core.cli.runvalues import port_bindings

    found: list[dict[str, Any]] = []
    for item in _list(service, "ports"):
        if isinstance(item, dict):
            long = Reader(item, service.at("ports"))
            long.only("target", "published", "protocol", "mode", "name", "app_protocol", "host_ip")
            found.append(
                {
                    "TargetPort": long.number("target"),
                    "PublishedPort": long.number("published") or 0,
                    "Protocol": long.text("protocol") or "tcp",
                    "PublishMode": long.text("mode") or "ingress",
                }
            )
            continue
        try:
            _, bindings = port_bindings([text(item, service.at("ports"))])
        except Failure:
            raise
        except Exception as exc:  # click's, which names an option that nobody has written
            raise wrong(service.at("ports"), f"'{item}' is no port", "write 8080:80") from exc
        for key, places in bindings.items():
            target, _, protocol = key.partition("/")
            found.extend(
                {
                    "TargetPort": int(target),
                    "PublishedPort": int(place["HostPort"] or 0),
                    "Protocol": protocol,
                    "PublishMode": "ingress",
                }
                for place in places
            )
    return found
