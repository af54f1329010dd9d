"""A compose file to a pipeline that builds its images and deploys its services."""

from collections.abc import Callable
from typing import Any, Final

from linkspan.workflows.adopting.compose_values import ports, value, volume, words
from linkspan.workflows.adopting.draft import Draft, fields, items, job_id, pairs, plain, text
from linkspan.workflows.adopting.expressions import secrets_in
from linkspan.workflows.parse import Field, Mapping, Node, Sequence

_SAME: Final = {
    "entrypoint": "entrypoint",
    "user": "user",
    "working_dir": "working-dir",
    "hostname": "hostname",
    "stop_signal": "stop-signal",
    "stop_grace_period": "stop-grace",
}
_ELSEWHERE: Final = {
    "depends_on": "services are deployed in this order; each step waits until its service is well",
    "container_name": "tasks have names of their own",
    "env_file": "write its values below `env`",
    "privileged": "services run without it",
    "network_mode": "services join networks by name",
    "extends": "there is no `extends`",
    "profiles": "everything in the file is deployed; give the job an `if`",
    "configs": "copy the file into the image, or mount a volume",
}


def adopt_compose(draft: Draft) -> None:
    """Fill a draft from a compose file."""
    top = fields(draft.source.root)
    for name, field in top.items():
        if name in ("services", "name", "version") or name.startswith("x-"):
            continue
        if name == "secrets":
            _values_of(draft, field.value)
        elif name in ("volumes", "networks"):
            draft.notes.append(f"`{name}` are made when a service names them")
        else:
            draft.lose(field.key, name, _ELSEWHERE.get(name, "it has no counterpart"))
    if "services" not in top:
        return
    services = _in_order(fields(top["services"].value))
    builds: list[dict[str, Any]] = []
    outputs: dict[str, str] = {}
    deploys: list[dict[str, Any]] = []
    for name, field in services.items():
        own = fields(field.value)
        id_ = job_id(name)
        if "build" in own:
            builds.append(
                {"id": id_, "uses": "build", "with": _build(draft, name, own["build"].value)}
            )
            outputs[id_] = f"${{{{ steps.{id_}.outputs.id }}}}"
        settings = _deploy(draft, name, own, id_)
        granted = [
            each for text in settings.get("secrets", {}).values() for each in secrets_in(text)
        ]
        draft.secrets |= dict.fromkeys(granted)
        grant = {"secrets": list(dict.fromkeys(granted))} if granted else {}
        deploys.append({"id": id_, "uses": "deploy", **grant, "with": settings})
    if builds:
        draft.jobs["build"] = {"outputs": outputs, "steps": builds}
    deploy: dict[str, Any] = {"needs": ["build"]} if builds else {}
    draft.jobs["deploy"] = {**deploy, "steps": deploys}


def _secret(name: str) -> str:
    """A secret's name here: the variable that it could be."""
    return job_id(name).replace("-", "_").upper()


def _values_of(draft: Draft, node: Node) -> None:
    """Where the values of the file's secrets are now, and where they belong."""
    for name, field in fields(node).items():
        file = fields(field.value).get("file")
        origin = f" --from-file {text(file.value)}" if file else ""
        draft.notes.append(f"keep it first: linkspan workflow secret set {_secret(name)}{origin}")


def _files_of(draft: Draft, node: Node) -> dict[str, str]:
    """``secrets`` of a service: file below ``/run/secrets`` → value."""
    found: dict[str, str] = {}
    for item in items(node):
        own = fields(item)
        source = text(own["source"].value) if "source" in own else text(item)
        target = text(own["target"].value) if "target" in own else source
        target = target.removeprefix("/run/secrets/")
        if not source or "/" in target:
            draft.lose(item, f"secrets: {source or '?'}", "secrets are files below /run/secrets")
            continue
        for key in own.keys() - {"source", "target"}:
            draft.lose(own[key].key, f"secrets.{key}", "it has no counterpart")
        found[target] = f"${{{{ secrets.{_secret(source)} }}}}"
    return found


def _in_order(services: dict[str, Field]) -> dict[str, Field]:
    """Services after those they depend on; a circle is cut where it closes."""
    order: dict[str, Field] = {}
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in order or name in visiting or name not in services:
            return
        visiting.add(name)
        own = fields(services[name].value)
        if "depends_on" in own:
            node = own["depends_on"].value
            for other in fields(node) or [text(item) for item in items(node)]:
                visit(other)
        order[name] = services[name]

    for name in services:
        visit(name)
    return order


def _build(draft: Draft, name: str, node: Node) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    own = fields(node)
    context = text(node) or text(own["context"].value if "context" in own else None) or "."
    if context != ".":
        settings["context"] = context.removeprefix("./") or "."
    names = {"dockerfile": "file", "target": "target", "args": "args", "labels": "labels"}
    for key, field in own.items():
        if key == "context":
            continue
        if key not in names:
            draft.lose(field.key, f"build.{key}", "the builder has no such setting here")
        elif key in ("args", "labels"):
            settings[names[key]] = {k: value(draft, n, v) for k, n, v in pairs(field.value)}
        else:
            settings[names[key]] = value(draft, field.value, text(field.value))
    settings["tags"] = [f"{name}:latest"]
    return settings


def _deploy(draft: Draft, name: str, own: dict[str, Field], id_: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"service": name}
    if "build" in own:
        settings["image"] = f"${{{{ needs.build.outputs.{id_} }}}}"
    for key, field in own.items():
        node = field.value

        def put(setting: str, value: Any, at: Node = node) -> None:
            draft.setting("deploy", settings, setting, value, at)

        if key == "build" or (key == "image" and "build" in own):
            continue
        if not _known(draft, key, node, put):
            why = _ELSEWHERE.get(key, "`deploy` has no such setting")
            if key == "depends_on":
                draft.notes.append(why)
            else:
                draft.lose(field.key, f"{name}.{key}", why)
    return settings


def _known(draft: Draft, key: str, node: Node, put: Callable[..., None]) -> bool:
    """Convert one key of a service; whether it has a counterpart."""
    match key:
        case "image":
            put("image", value(draft, node, text(node)))
        case "environment":
            put("env", {k: value(draft, n, v) for k, n, v in pairs(node)})
        case "labels":
            put("labels", {k: value(draft, n, v) for k, n, v in pairs(node)})
        case "command" | "entrypoint":
            put(key, words(draft, node))
        case "ports" | "volumes":
            read = ports if key == "ports" else volume
            put(key, [entry for item in items(node) for entry in read(draft, item)])
        case "networks":
            put("networks", list(fields(node)) or [text(item) for item in items(node)])
        case "secrets":
            put("secrets", _files_of(draft, node))
        case "healthcheck":
            _healthcheck(draft, node, put)
        case "deploy":
            _deploy_keys(draft, node, put)
        case "restart":
            word = text(node).partition(":")[0]
            condition = {"no": "none", "on-failure": "on-failure"}.get(word, "any")
            put("restart", {"condition": condition})
        case _ if key in _SAME:
            put(_SAME[key], value(draft, node, text(node)))
        case _:
            return False
    return True


def _healthcheck(draft: Draft, node: Node, put: Callable[..., None]) -> None:
    found: dict[str, Any] = {}
    for key, field in fields(node).items():
        if key == "test":
            test = field.value
            parts = [value(draft, item, text(item)) for item in items(test)]
            found["test"] = parts if isinstance(test, Sequence) else ["CMD-SHELL", *parts]
        elif key in ("interval", "timeout", "start_period", "start_interval"):
            found[key] = text(field.value)
        elif key == "retries":
            found[key] = plain(field.value)
        else:
            draft.lose(field.key, f"healthcheck.{key}", "it has no counterpart")
    if "test" in found:
        put("healthcheck", found)


def _deploy_keys(draft: Draft, node: Node, put: Callable[..., None]) -> None:
    for key, field in fields(node).items():
        if key == "replicas" and isinstance(plain(field.value), int):
            put("replicas", plain(field.value))
        elif key == "update_config" and isinstance(field.value, Mapping):
            own = fields(field.value)
            names = {"parallelism": "parallelism", "delay": "delay", "order": "order"}
            names |= {"monitor": "monitor", "failure_action": "failure-action"}
            update = {names[k]: plain(f.value) for k, f in own.items() if k in names}
            put("update", update)
            for name in own.keys() - names.keys():
                draft.lose(own[name].key, f"update_config.{name}", "it has no counterpart")
        elif key == "restart_policy":
            own = fields(field.value)
            known = {"condition": "condition", "delay": "delay", "max_attempts": "max-attempts"}
            known |= {"window": "window"}
            put("restart", {known[k]: plain(f.value) for k, f in own.items() if k in known})
        elif key == "placement":
            constraints = fields(field.value).get("constraints")
            put(
                "constraints",
                [text(item) for item in items(constraints.value if constraints else None)],
            )
        else:
            draft.lose(field.key, f"deploy.{key}", "`deploy` has no such setting")
