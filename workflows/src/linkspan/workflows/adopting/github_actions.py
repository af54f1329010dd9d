"""Actions that have a counterpart: a verb, a key of the job, or nothing at all because it is there already."""

import re
from typing import Any, Final

from linkspan.workflows.adopting.draft import fields, job_id, text
from linkspan.workflows.adopting.expressions import condition, secrets_in
from linkspan.workflows.adopting.github_job import JobDraft
from linkspan.workflows.parse import Field, Node

Table = dict[str, Any]
_EXPRESSION: Final = re.compile(r"\$\{\{.*?\}\}")
_MADE: Final = re.compile(r"\$\{\{\s*steps\.([\w-]+)\.outputs\.(?:tags|labels)\s*\}\}")
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


def adopt_action(job: JobDraft, own: dict[str, Field], step: Table) -> list[Table]:
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
            if "if" in own:
                why = "artifacts are always kept; a job that succeeds without a file for one fails"
                job.draft.lose(own["if"].key, f"if: {text(own['if'].value)}", why)
            return _upload(job, given)
        case "actions/download-artifact":
            return _download(job, given, node)
        case "docker/metadata-action":
            return _metadata(job, own, given, node)
        case "docker/build-push-action":
            return _build_push(job, given, step)
        case "docker/login-action":
            return _login(job, given, step, node)
        case _:
            job.draft.lose(
                node, f"uses: {text(node)}", "write what it does as a script, or look for a verb"
            )
            return []


def _setup(job: JobDraft, action: str, given: dict[str, Field], node: Node) -> list[Table]:
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


def _cache(job: JobDraft, given: dict[str, Field]) -> list[Table]:
    paths = text(given["path"].value).split("\n") if "path" in given else []
    key = job.template(given["key"].value) if "key" in given else ""
    lines = job.template(given["restore-keys"].value) if "restore-keys" in given else ""
    restore = [line.strip() for line in lines.splitlines() if line.strip()]
    for path in filter(None, (path.strip() for path in paths)):
        cache: Table = {"path": path, "key": key}
        job.caches.append(cache | ({"restore": [*restore]} if restore else {}))
    return []


def _upload(job: JobDraft, given: dict[str, Field]) -> list[Table]:
    name = _artifact(given)
    lines = job.template(given["path"].value).splitlines() if "path" in given else []
    paths = [path for path in (line.strip().removeprefix("./") for line in lines) if path]
    if paths:
        job.artifacts[name] = paths[0] if len(paths) == 1 else paths
    return []


def _artifact(given: dict[str, Field]) -> str:
    """The name of an artifact without what differs from run to run, or from cell to cell."""
    words = _EXPRESSION.sub("", text(given["name"].value)) if "name" in given else ""
    return job_id(words.strip("-_. ")) if words.strip("-_. ") else "artifact"


def _download(job: JobDraft, given: dict[str, Field], node: Node) -> list[Table]:
    if "name" not in given:
        job.draft.lose(node, text(node), "name the artifacts: load-artifacts: [NAME]")
        return []
    name, path = _artifact(given), text(given["path"].value) if "path" in given else ""
    path = path.removeprefix("./").strip("/")
    job.loads.append({"name": name, "path": path} if path not in ("", ".") else name)
    return []


def _login(job: JobDraft, given: dict[str, Field], step: Table, node: Node) -> list[Table]:
    if "login" not in job.draft.verbs or not {"username", "password"} <= given.keys():
        job.draft.lose(node, text(node), "log in once on the machine: linkspan login REGISTRY")
        return []
    settings = {
        "registry": job.template(given["registry"].value) if "registry" in given else "docker.io",
        "username": job.template(given["username"].value),
        "password": job.template(given["password"].value),
    }
    if not settings["username"] or not settings["password"]:
        job.draft.lose(node, text(node), "log in once on the machine: linkspan login REGISTRY")
        return []
    names = [name for value in settings.values() for name in secrets_in(value)]
    job.draft.secrets |= dict.fromkeys(names)
    granted = {"secrets": list(dict.fromkeys(names))} if names else {}
    return [{**step, "uses": "login", "with": settings, **granted}]


def _metadata(
    job: JobDraft, own: dict[str, Field], given: dict[str, Field], node: Node
) -> list[Table]:
    """Names for images, which `docker/build-push-action` takes by this step's id."""
    images = job.template(given["images"].value).split() if "images" in given else []
    kinds = text(given["tags"].value).splitlines() if "tags" in given else []
    tags: list[str] = []
    for line in kinds or ["type=sha"]:
        words = dict(part.partition("=")[::2] for part in line.strip().split(","))
        tag = {"sha": "${{ git.short_sha }}", "raw": words.get("value", "")}.get(
            words.get("type", "")
        )
        if line.strip() and (not tag or ("{{" in tag and "${{" not in tag)):
            job.draft.lose(given["tags"].key, line.strip(), "write the tag at `push`")
        elif line.strip() and tag:
            tags.append(tag)
    named = [f"{image}:{tag}" for image in images for tag in tags or ["${{ git.short_sha }}"]]
    if "id" in own and named:
        job.tags[text(own["id"].value)] = named
    else:
        job.draft.lose(node, text(node), "write the names of the image at `push`")
    return []


def _caches(job: JobDraft, settings: Table, key: str, node: Node) -> bool:
    """Caches of a registry; the forge's own is needless, since the builder keeps its steps."""
    lines = [line.strip() for line in job.template(node).splitlines() if line.strip()]
    names: list[str] = []
    for line in lines:
        words = dict(part.partition("=")[::2] for part in line.split(","))
        if words.get("type") == "gha":
            continue
        if words.get("type", "registry") != "registry":
            return False
        names.append(words.get("ref", "") or line)
    if names:
        settings[key] = names if key == "cache-from" else names[0]
    return len(names) <= 1 or key == "cache-from"


def _build_push(job: JobDraft, given: dict[str, Field], step: Table) -> list[Table]:
    names = {"context": "context", "file": "file", "target": "target"}
    settings: Table = {}
    tags: list[str] = []
    push = provenance = False
    when: str | None = ""
    for key, field in given.items():
        node = field.value
        if key in names:
            settings[names[key]] = job.template(node).removeprefix("./") or "."
        elif key == "tags":
            made = _MADE.fullmatch(text(node).strip())
            if made and made[1] in job.tags:
                tags = job.tags[made[1]]
                continue
            words = job.template(node).replace(",", "\n").split("\n")
            tags = [tag.strip() for tag in words if tag.strip()]
        elif key == "labels" and _MADE.fullmatch(text(node).strip()):
            job.draft.lose(field.key, "labels", "write them at `build`")
        elif key in ("build-args", "labels"):
            lines = [line.partition("=") for line in job.template(node).split("\n") if "=" in line]
            settings["args" if key == "build-args" else key] = {k.strip(): v for k, _, v in lines}
        elif key == "secrets":
            lines = [line.partition("=") for line in job.template(node).split("\n") if "=" in line]
            settings["secret-mounts"] = {k.strip(): v.strip() for k, _, v in lines}
            granted = dict.fromkeys(name for _, _, value in lines for name in secrets_in(value))
            job.draft.secrets |= granted
            step = {**step, "secrets": [*{**dict.fromkeys(step.get("secrets", [])), **granted}]}
        elif key == "platforms" and "$" not in text(node):
            names_of = [name.strip() for name in re.split(r"[,\n]", text(node)) if name.strip()]
            settings["platforms"] = names_of
        elif key == "sbom" and text(node) in ("true", "false"):
            settings |= {"sbom": True} if text(node) == "true" else {}
        elif key == "provenance" and "$" not in text(node):
            provenance = text(node) != "false"
        elif key in ("cache-from", "cache-to") and _caches(job, settings, key, node):
            pass
        elif key == "push":
            push = text(node) != "false"
            when = condition(text(node)) if "${{" in text(node) else ""
        else:
            job.draft.lose(field.key, f"with.{key}", "`build` has no such setting")
    build = {**step, "id": step.get("id") or "image", "uses": "build", "with": settings}
    if not push or not tags:
        settings["tags"] = tags
        if not tags:
            del settings["tags"]
        return [build]
    image = f"${{{{ steps.{build['id']}.outputs.id }}}}"
    pushing: Table = {"id": f"{build['id']}-push", "uses": "push"}
    pushing["with"] = {"image": image, "tags": tags}
    if provenance:
        pushing["with"]["provenance"] = True
    job.moved[f"steps.{build['id']}.outputs.digest"] = f"steps.{pushing['id']}.outputs.digest"
    job.moved[f"steps.{build['id']}.outputs.imageid"] = f"steps.{build['id']}.outputs.id"
    if when is None:
        job.draft.lose(given["push"].key, f"push: {text(given['push'].value)}", "it always pushes")
    conditions = [str(each) for each in (step.get("if"), when) if each not in (None, "", "true")]
    if conditions:
        pushing["if"] = " && ".join(conditions)
    return [build, pushing]
