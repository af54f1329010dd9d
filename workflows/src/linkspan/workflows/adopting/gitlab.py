"""A GitLab CI file: jobs stay jobs, stages become `needs`, a script is one step."""

import re
from collections.abc import Iterator
from typing import Any, Final

import attrs

from linkspan.workflows.adopting.draft import Draft, fields, items, job_id, plain, text
from linkspan.workflows.adopting.expressions import needs_bash
from linkspan.workflows.adopting.gitlab_files import whole_file, whole_job
from linkspan.workflows.adopting.gitlab_rules import rules_of, without_rules
from linkspan.workflows.adopting.gitlab_variables import as_expressions, as_variables
from linkspan.workflows.parse import Field, Mapping, Node, Sequence

_STAGES: Final = (".pre", "build", "test", "deploy", ".post")
_TOP: Final = frozenset(
    {"stages", "variables", "image", "services", "cache", "default", "before_script"}
    | {"after_script", "workflow", "spec"}
)
_INHERITED: Final = ("image", "services", "cache", "before_script", "after_script", "retry")
_LOST: Final = {
    "workflow": "write `on:` for the pipeline, `if:` for a job",
    "tags": "machines are chosen by `use.runtime`",
    "trigger": "write `uses: ./FILE` for a pipeline of yours",
    "inherit": "write what the job shall have at the job",
    "parallel": "write a matrix: strategy: {matrix: {AXIS: [...]}}",
    "coverage": "print it, or keep it as an artifact",
    "interruptible": "write `concurrency` at the top",
    "id_tokens": "grant a secret to the step",
    "secrets": "declare `secrets` at the top and grant them to the step",
    "release": "write what it does as a script",
    "pages": "write what it does as a script",
}
_TIME: Final = re.compile(r"(\d+)\s*(d|h|m|s)[a-z]*")
_CAUSES: Final = {"runner_system_failure": "network", "stuck_or_timeout_failure": "timeout"}


@attrs.frozen(kw_only=True)
class _File:
    """The whole file.

    Attributes:
        jobs: Name there → keys, what it extends put in.
        ids: Name there → name here.
        stages: In their order.
        keeps: Names there of jobs that keep artifacts.
    """

    draft: Draft
    jobs: dict[str, dict[str, Field]]
    ids: dict[str, str]
    stages: list[str]
    keeps: list[str]

    def stage(self, name: str) -> int:
        """The number of a job's stage."""
        own = self.jobs[name]
        stage = text(own["stage"].value) if "stage" in own else "test"
        return self.stages.index(stage) if stage in self.stages else len(self.stages)


def adopt_gitlab(draft: Draft) -> None:
    """Fill a draft from a GitLab CI file."""
    top = whole_file(draft)
    for name, field in top.items():
        if name in ("workflow", "spec"):
            draft.lose(field.key, name, _LOST.get(name, "it has no counterpart"))
    if "variables" in top:
        env = _env(draft, top["variables"].value)
        draft.top["env"] = env
    draft.top["on"] = {"push": {}, "manual": True}
    default = fields(top["default"].value) if "default" in top else {}
    default |= {name: top[name] for name in _INHERITED if name in top}
    found = {
        name: whole_job(draft, top, field.value)
        for name, field in top.items()
        if name not in _TOP and not name.startswith(".") and isinstance(field.value, Mapping)
    }
    stages = [text(item) for item in items(top["stages"].value)] if "stages" in top else []
    ids: dict[str, str] = {}
    for name in found:
        ids[name] = job_id(name, ids.values())
    file = _File(
        draft=draft,
        jobs={name: {**default, **own} for name, own in found.items()},
        ids=ids,
        stages=[".pre", *stages, ".post"] if stages else list(_STAGES),
        keeps=[name for name, own in found.items() if _paths(own)],
    )
    for name in sorted(found, key=file.stage):
        draft.jobs[ids[name]] = _job(file, name)


def _env(draft: Draft, node: Node) -> dict[str, str]:
    env: dict[str, str] = {}
    for name, field in fields(node).items():
        given = fields(field.value)
        at = given["value"].value if "value" in given else field.value
        env[name] = as_expressions(draft, at, text(at), env)
    return env


def _lines(own: dict[str, Field], key: str) -> list[str]:
    """A script: lists may hold lists, as anchors make them."""
    if key not in own:
        return []
    return [line for line in _flat(own[key].value) if line]


def _flat(node: Node) -> Iterator[str]:
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _flat(item)
    else:
        yield text(node)


def _paths(own: dict[str, Field]) -> list[str]:
    given = fields(own["artifacts"].value) if "artifacts" in own else {}
    return [text(item) for item in items(given["paths"].value)] if "paths" in given else []


def _job(file: _File, name: str) -> dict[str, Any]:
    draft, own = file.draft, file.jobs[name]
    job: dict[str, Any] = {"needs": _needs(file, name)}
    step: dict[str, Any] = {}
    if "variables" in own:
        # Services get them, too, wherever they stand.
        job["env"] = _env(draft, own["variables"].value)
    for key, field in own.items():
        _key(file, job, step, key, field)
    condition = rules_of(draft, own) if "rules" in own else without_rules(draft, own)
    if condition is not None:
        job["if"] = condition
    loads = [file.ids[each] for each in file.keeps if file.ids[each] in job["needs"]]
    if loads:
        job["load-artifacts"] = loads
    if not job["needs"]:
        del job["needs"]
    job.setdefault("image", "ubuntu:24.04")
    script = "\n".join([*_lines(own, "before_script"), *_lines(own, "script")])
    if not script:
        draft.notes.append(f"job '{name}' has no script: an empty one stands there")
    step["run"] = _script(draft, own, script, step) or "true"
    steps = [step]
    after = "\n".join(_lines(own, "after_script"))
    if after:
        last: dict[str, Any] = {"if": "always()"}
        last["run"] = _script(draft, own, after, last)
        steps.append(last)
    job["steps"] = steps
    return job


def _script(draft: Draft, own: dict[str, Field], script: str, step: dict[str, Any]) -> str:
    node = own["script"].value if "script" in own else next(iter(own.values())).value
    if needs_bash(script):
        step["shell"] = "bash"
    if re.search(r"\bdocker\s+(?:build|push|login|buildx|compose)\b", script):
        draft.notes.append(
            "scripts have no docker: use the verbs `build`, `push`, `login`, `deploy`"
        )
    return as_variables(draft, node, script).replace("${{", "$ {{")


def _needs(file: _File, name: str) -> list[str]:
    """Jobs that must have ended: those it names, or else those of the stage before, and whose files it gets."""
    own = file.jobs[name]
    if "needs" in own:
        wanted = [
            text(fields(item)["job"].value) if "job" in fields(item) else text(item)
            for item in items(own["needs"].value)
        ]
        for each in wanted:
            if each not in file.ids:
                file.draft.lose(own["needs"].key, f"needs: {each}", "there is no such job here")
        return [file.ids[each] for each in wanted if each in file.ids]
    mine = file.stage(name)
    earlier = [each for each in file.jobs if file.stage(each) < mine]
    last = max((file.stage(each) for each in earlier), default=-1)
    return [file.ids[each] for each in earlier if file.stage(each) == last or each in file.keeps]


def _key(file: _File, job: dict[str, Any], step: dict[str, Any], key: str, field: Field) -> None:
    draft, node = file.draft, field.value
    match key:
        case "stage" | "needs" | "script" | "before_script" | "after_script" | "dependencies":
            pass
        case "rules" | "only" | "except" | "when" | "variables":
            pass
        case "image":
            own = fields(node)
            named = own["name"].value if "name" in own else node
            job["image"] = as_expressions(draft, named, text(named))
        case "services":
            job["services"] = dict(_service(file, job, item) for item in items(node))
        case "artifacts":
            _artifacts(file, job, step, field)
        case "cache":
            job["cache"] = [cache for item in items(node) for cache in _caches(draft, item)]
        case "timeout":
            parts = "".join(f"{count}{unit}" for count, unit in _TIME.findall(text(node)))
            job["timeout"] = parts or f"{text(node)}s"
        case "allow_failure":
            job["continue-on-error"] = text(node) != "false"
        case "retry":
            step["retry"] = _retry(node)
        case "environment":
            own = fields(node)
            named = own["name"].value if "name" in own else node
            job["environment"] = as_expressions(draft, named, text(named))
        case "resource_group":
            job["lock"] = as_expressions(draft, node, text(node))
        case "parallel" if "matrix" in fields(node) and _matrix(draft, job, node):
            pass
        case _:
            draft.lose(field.key, key, _LOST.get(key, "it has no counterpart"))


def _service(file: _File, job: dict[str, Any], node: Node) -> tuple[str, dict[str, Any]]:
    own = fields(node)
    image = text(own["name"].value) if "name" in own else text(node)
    alias = text(own["alias"].value) if "alias" in own else ""
    name = alias or job_id(image.partition(":")[0].rpartition("/")[2] or image)
    service: dict[str, Any] = {"image": as_expressions(file.draft, node, image)}
    if "command" in own:
        service["command"] = [text(item) for item in items(own["command"].value)]
    # Services get the job's variables there.
    env = {**file.draft.top.get("env", {}), **job.get("env", {})}
    if env:
        service["environment"] = env
    if "docker" in image and "dind" in image:
        file.draft.lose(node, image, "scripts have no docker: use the verbs `build` and `push`")
    return name, service


def _artifacts(file: _File, job: dict[str, Any], step: dict[str, Any], field: Field) -> None:
    given = fields(field.value)
    name = next(file.ids[each] for each, own in file.jobs.items() if own.get("artifacts") is field)
    paths = [as_expressions(file.draft, field.value, path) for path in _paths({"artifacts": field})]
    if paths:
        job["artifacts"] = {name: paths[0] if len(paths) == 1 else paths}
    reports = fields(given["reports"].value) if "reports" in given else {}
    for kind, each in reports.items():
        if kind == "junit":
            step["reports"] = {"junit": text(items(each.value)[0])}
        else:
            file.draft.lose(each.key, f"reports.{kind}", "keep it as an artifact")
    for key in ("exclude", "untracked", "expose_as"):
        if key in given:
            file.draft.lose(given[key].key, f"artifacts.{key}", "name the paths that are kept")


def _caches(draft: Draft, node: Node) -> list[dict[str, Any]]:
    own = fields(node)
    key = "default"
    if "key" in own:
        files = fields(own["key"].value).get("files")
        if files is not None:
            names = ", ".join(f"'{text(item)}'" for item in items(files.value))
            key = f"${{{{ hash_files({names}) }}}}"
        else:
            key = as_expressions(draft, own["key"].value, text(own["key"].value)) or "default"
    when = text(own["when"].value) if "when" in own else ""
    save = {"save": "success"} if when in ("", "on_success") else {}
    paths = [text(item) for item in items(own["paths"].value)] if "paths" in own else []
    return [
        {"path": path.rstrip("/"), "key": f"{path.rstrip('/')}-{key}", **save} for path in paths
    ]


def _retry(node: Node) -> dict[str, Any]:
    own = fields(node)
    if not own:
        return {"max": plain(node)}
    found: dict[str, Any] = {"max": plain(own["max"].value) if "max" in own else 2}
    causes = [text(item) for item in items(own["when"].value)] if "when" in own else []
    known = [_CAUSES[each] for each in causes if each in _CAUSES]
    return found | ({"on": known} if known and len(known) == len(causes) else {})


def _matrix(draft: Draft, job: dict[str, Any], node: Node) -> bool:
    """One table of axes; each is a variable of the job, as there."""
    tables = [fields(item) for item in items(fields(node)["matrix"].value)]
    if len(tables) != 1:
        return False
    axes = {
        name: [str(plain(item)) for item in items(field.value)] for name, field in tables[0].items()
    }
    job["strategy"] = {"matrix": axes, "fail-fast": False}
    job["env"] = {**job.get("env", {}), **{name: f"${{{{ matrix.{name} }}}}" for name in axes}}
    return True
