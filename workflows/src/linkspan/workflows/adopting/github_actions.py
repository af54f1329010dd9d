"""Actions that have a counterpart: a verb, a key of the job, or nothing at all because it is there already."""

import re
from typing import TYPE_CHECKING, Any, Final

from linkspan.workflows.adopting.draft import fields, job_id, text
from linkspan.workflows.parse import Field, Node

if TYPE_CHECKING:
    from linkspan.workflows.adopting.github import JobDraft

Table = dict[str, Any]
_EXPRESSION: Final = re.compile(r"\$\{\{.*?\}\}")
_NEEDLESS: Final = frozenset(
    {"actions/checkout", "docker/setup-buildx-action", "docker/setup-qemu-action"}
)
_SETUPS: Final = {
    "actions/setup-python": ("python", "python-version", "-slim"),
    "actions/setup-node": ("node", "node-version", "-slim"),
    "actions/setup-go": ("golang", "go-version", ""),
    "actions/setup-java": ("eclipse-temurin", "java-version", ""),
    "ruby/setup-ruby": ("ruby", "ruby-version", "-slim"),
    "dtolnay/rust-toolchain": ("rust", "toolchain", "-slim"),
    "astral-sh/setup-uv": ("ghcr.io/astral-sh/uv", "", "python3.12-bookworm-slim"),
}


def adopt_action(job: "JobDraft", own: dict[str, Field], step: Table) -> list[Table]:
    """The steps in place of an action; none if it needs none."""
    node = own["uses"].value
    action = text(node).partition("@")[0]
    given = fields(own["with"].value if "with" in own else None)
    if action in _NEEDLESS:
        return []
    if action in _SETUPS:
        return _setup(job, action, given, node)
    match action:
        case "actions/cache":
            return _cache(job, given)
        case "actions/upload-artifact":
            return _upload(job, given)
        case "actions/download-artifact":
            job.loads += [text(given["name"].value)] if "name" in given else []
            return []
        case "docker/build-push-action":
            return _build_push(job, given, step)
        case "docker/login-action":
            job.draft.lose(node, action, "log in once on the machine: linkspan login REGISTRY")
            return []
        case _:
            job.draft.lose(
                node, f"uses: {text(node)}", "write what it does as a script, or look for a verb"
            )
            return []


def _setup(job: "JobDraft", action: str, given: dict[str, Field], node: Node) -> list[Table]:
    image, key, suffix = _SETUPS[action]
    if job.chosen:
        job.draft.lose(node, action, f"the image is {job.image} already; build one with both tools")
        return []
    version = job.template(given[key].value) if key in given else ""
    if not version or " " in _EXPRESSION.sub("", version) or version in ("stable", "lts/*"):
        job.image = f"{image}:{suffix.removeprefix('-') or 'latest'}"
    else:
        job.image = f"{image}:{version.removesuffix('.x')}{suffix}"
    job.chosen = True
    if "cache" in given:
        job.draft.lose(
            given["cache"].key, "cache", "write `cache: [{path: ..., key: ...}]` at the job"
        )
    return []


def _cache(job: "JobDraft", given: dict[str, Field]) -> list[Table]:
    paths = text(given["path"].value).split("\n") if "path" in given else []
    key = job.template(given["key"].value) if "key" in given else ""
    restore = text(given["restore-keys"].value).split() if "restore-keys" in given else []
    for path in filter(None, (path.strip() for path in paths)):
        cache: Table = {"path": path, "key": key}
        job.caches.append(cache | ({"restore": restore} if restore else {}))
    return []


def _upload(job: "JobDraft", given: dict[str, Field]) -> list[Table]:
    name = job_id(text(given["name"].value)) if "name" in given else "artifact"
    paths = (
        [path.strip() for path in text(given["path"].value).split("\n")] if "path" in given else []
    )
    paths = [path for path in paths if path]
    if paths:
        job.artifacts[name] = paths[0] if len(paths) == 1 else paths
    return []


def _build_push(job: "JobDraft", given: dict[str, Field], step: Table) -> list[Table]:
    names = {"context": "context", "file": "file", "target": "target"}
    settings: Table = {}
    tags: list[str] = []
    push = False
    for key, field in given.items():
        node = field.value
        if key in names:
            settings[names[key]] = job.template(node).removeprefix("./") or "."
        elif key == "tags":
            words = job.template(node).replace(",", "\n").split("\n")
            tags = [tag.strip() for tag in words if tag.strip()]
        elif key in ("build-args", "labels"):
            lines = [line.partition("=") for line in job.template(node).split("\n") if "=" in line]
            settings["args" if key == "build-args" else key] = {k.strip(): v for k, _, v in lines}
        elif key == "push":
            push = text(node) != "false"
        else:
            job.draft.lose(field.key, f"with.{key}", "`build` has no such setting")
    build = {**step, "id": step.get("id") or "image", "uses": "build", "with": settings}
    if not push or not tags:
        settings["tags"] = tags
        if not tags:
            del settings["tags"]
        return [build]
    image = f"${{{{ steps.{build['id']}.outputs.id }}}}"
    pushing: Table = {"uses": "push", "with": {"image": image, "tags": tags}}
    if "if" in step:
        pushing["if"] = step["if"]
    return [build, pushing]
