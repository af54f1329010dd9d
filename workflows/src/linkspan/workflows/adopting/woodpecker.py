"""A Woodpecker pipeline: its steps become steps of one job, in one workspace, as they were."""

from typing import Any

from linkspan.workflows.adopting.draft import Draft, fields, items, job_id, plain, text
from linkspan.workflows.parse import Field, Mapping, Node, Sequence

_LOST = {
    "when": "write `on:` for the pipeline, `if:` for a step",
    "depends_on": "steps run in the order written; jobs have `needs`",
    "labels": "machines are chosen by `use.runtime`",
    "skip_clone": "sources are in the workspace already",
    "runs_on": "write `if: always()` at the steps",
    "detach": "make it a service",
    "privileged": "scripts run without it",
    "settings": "a plugin of Woodpecker: look for a verb, `linkspan plugin ls`",
    "volumes": "mount a volume of the job",
    "backend_options": "they belong to Woodpecker's own machines",
    "directory": "write `working-directory`",
}


def adopt_woodpecker(draft: Draft) -> None:
    """Fill a draft from a Woodpecker file."""
    top = fields(draft.source.root)
    job: dict[str, Any] = {}
    for name, field in top.items():
        match name:
            case "steps" | "services" | "variables" | "clone":
                pass
            case "matrix":
                _matrix(draft, job, field)
            case _:
                draft.lose(field.key, name, _LOST.get(name, "it has no counterpart"))
    if "services" in top:
        services = {name: _service(draft, node) for name, node in _named(top["services"].value)}
        job["services"] = services
    steps = [
        _step(draft, name, node)
        for name, node in _named(top["steps"].value if "steps" in top else None)
    ]
    job["steps"] = [step for step in steps if step]
    if not job["steps"]:
        job["steps"] = [{"run": "true", "image": "busybox"}]
        draft.notes.append("no step could be converted: an empty one stands in their place")
    draft.jobs["pipeline"] = job


def _named(node: Node | None) -> list[tuple[str, Node]]:
    """Steps or services: a mapping by name, or a list with ``name``."""
    if isinstance(node, Mapping):
        return [(name, field.value) for name, field in fields(node).items()]
    found = []
    for item in items(node):
        own = fields(item)
        found.append((text(own["name"].value) if "name" in own else "", item))
    return found


def _matrix(draft: Draft, job: dict[str, Any], field: Field) -> None:
    axes = {name: plain(each.value) for name, each in fields(field.value).items()}
    if "include" in axes and len(axes) == 1:
        matrix: dict[str, Any] = {"include": axes["include"]}
    else:
        matrix = {
            name: [str(v) for v in values]
            for name, values in axes.items()
            if isinstance(values, list)
        }
    job["strategy"] = {"matrix": matrix}


def _env(draft: Draft, node: Node, secrets: dict[str, None]) -> dict[str, str]:
    env: dict[str, str] = {}
    for name, field in fields(node).items():
        source = fields(field.value).get("from_secret")
        if source is None:
            env[name] = text(field.value).replace("${{", "$ {{")
        else:
            secret = job_id(text(source.value)).replace("-", "_").upper()
            secrets[secret] = None
            draft.secrets[secret] = None
            env[name] = f"${{{{ secrets.{secret} }}}}"
    if isinstance(node, Sequence):
        for item in node.items:
            name, _, value = text(item).partition("=")
            env[name] = value
    return env


def _service(draft: Draft, node: Node) -> dict[str, Any]:
    service: dict[str, Any] = {}
    for key, field in fields(node).items():
        match key:
            case "name":
                pass
            case "ports":
                draft.notes.append(
                    "ports of services are open in the job's network without being named"
                )
            case "image":
                service["image"] = text(field.value)
            case "environment":
                service["environment"] = _env(draft, field.value, {})
            case "commands" | "entrypoint":
                words = [text(item) for item in items(field.value)]
                shell = ["/bin/sh", "-c", "\n".join(words)]
                service["command" if key == "commands" else key] = (
                    shell if key == "commands" else words
                )
            case _:
                draft.lose(field.key, f"services.{key}", _LOST.get(key, "it has no counterpart"))
    return service


def _step(draft: Draft, name: str, node: Node) -> dict[str, Any]:
    own = fields(node)
    if "commands" not in own:
        image = text(own["image"].value) if "image" in own else ""
        draft.lose(node, f"step {name} ({image})", _LOST["settings"])
        return {}
    step: dict[str, Any] = {"name": name} if name else {}
    secrets: dict[str, None] = {}
    for key, field in own.items():
        match key:
            case "name":
                pass
            case "image":
                step["image"] = text(field.value)
            case "commands":
                script = "\n".join(text(item) for item in items(field.value))
                step["run"] = script.replace("${{", "$ {{")
            case "environment":
                step["env"] = _env(draft, field.value, secrets)
            case "failure" if text(field.value) == "ignore":
                step["continue-on-error"] = True
            case "directory":
                step["working-directory"] = text(field.value)
            case "when" if _status(field.value):
                step["if"] = _status(field.value)
            case _:
                draft.lose(field.key, f"{name}.{key}", _LOST.get(key, "it has no counterpart"))
    if secrets:
        step["secrets"] = list(secrets)
    return step


def _status(node: Node) -> str:
    """The condition of ``when: {status: [success, failure]}``; empty for anything more."""
    own = fields(node)
    if list(own) != ["status"]:
        return ""
    words = {text(item) for item in items(own["status"].value)}
    return {frozenset({"failure"}): "failure()", frozenset({"success", "failure"}): "always()"}.get(
        frozenset(words), ""
    )
