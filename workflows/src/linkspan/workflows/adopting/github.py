"""A GitHub workflow: jobs stay jobs, scripts get their values as environment variables."""

import re
from functools import partial
from typing import Any, Final

from linkspan.workflows.adopting.draft import Draft, fields, items, job_id, pairs, plain, text
from linkspan.workflows.adopting.expressions import (
    condition,
    needs_bash,
    renamed,
    script,
    secrets_in,
    template,
)
from linkspan.workflows.adopting.github_actions import adopt_action
from linkspan.workflows.adopting.github_composite import composite_steps, is_local
from linkspan.workflows.adopting.github_job import JobDraft
from linkspan.workflows.parse import Field, Mapping, Node, Scalar

_IMAGES: Final = {"ubuntu": "ubuntu:24.04"}
_INPUTS: Final = {"boolean": "bool", "number": "int", "choice": "choice", "environment": "string"}
_NOTHING: Final = {
    "permissions": "there are no forge permissions here",
    "run-name": "a run is named by its pipeline",
}


def adopt_github(draft: Draft) -> None:
    """Fill a draft from a workflow file."""
    top = fields(draft.source.root)
    for name, field in top.items():
        match name:
            case "name" | "jobs":
                pass
            case "on":
                _triggers(draft, field.value)
            case "env":
                draft.top["env"] = {
                    key: template(value, partial(_lost, draft, node))
                    for key, node, value in pairs(field.value)
                }
            case "concurrency":
                _concurrency(draft, field)
            case "defaults":
                run = fields(
                    fields(field.value)["run"].value if "run" in fields(field.value) else None
                )
                draft.top.setdefault("defaults", {}).update(
                    {
                        key: text(each.value)
                        for key, each in run.items()
                        if key != "shell" or text(each.value) in ("bash", "sh")
                    }
                )
            case _:
                draft.lose(field.key, name, _NOTHING.get(name, "it has no counterpart"))
    for name, field in fields(top["jobs"].value if "jobs" in top else None).items():
        draft.jobs[name] = _job(draft, field)


def _lost(draft: Draft, node: Node, found: str) -> None:
    draft.lose(node, f"${{{{ {found} }}}}", "this expression has no counterpart; it is empty now")


def _concurrency(draft: Draft, field: Field) -> None:
    own = fields(field.value)
    node = own["group"].value if "group" in own else field.value
    group = template(text(node), lambda found: _lost(draft, node, found))
    cancels = "cancel-in-progress" in own and text(own["cancel-in-progress"].value) == "true"
    value = {"group": group, "on-conflict": "cancel-running" if cancels else "queue"}
    draft.top["concurrency"] = value


# triggers


def _triggers(draft: Draft, node: Node) -> None:
    found: dict[str, Any] = {}
    named = fields(node) or {
        text(item): Field(key=item, value=item) for item in items(node) if isinstance(item, Scalar)
    }
    for name, field in named.items():
        own = fields(field.value)
        match name:
            case "workflow_dispatch":
                found["manual"] = True
                _inputs(draft, own)
            case "workflow_call":
                _inputs(draft, own)
                _outputs(draft, own)
            case "push":
                _push(draft, found, own, field)
            case "schedule":
                crons = [
                    {"cron": text(fields(item)["cron"].value)}
                    for item in items(field.value)
                    if "cron" in fields(item)
                ]
                found["schedule"] = crons
            case _:
                draft.lose(
                    field.key,
                    f"on.{name}",
                    "linkspan runs no forge; call it from one, or use `webhook`",
                )
    draft.top["on"] = {**found, "manual": True}


def _push(draft: Draft, found: dict[str, Any], own: dict[str, Field], field: Field) -> None:
    push = {
        key: [text(item) for item in items(own[key].value)]
        for key in ("branches", "paths")
        if key in own
    }
    for key in ("branches", "paths"):
        if f"{key}-ignore" in own:
            push[key] = ["**", *(f"!{text(item)}" for item in items(own[f"{key}-ignore"].value))]
    if "tags" in own:
        tags = {"tags": [text(item) for item in items(own["tags"].value)]}
        found["tag"] = tags
    if push or "tags" not in own:
        found["push"] = push


def _inputs(draft: Draft, own: dict[str, Field]) -> None:
    if "inputs" not in own:
        return
    inputs = draft.top.setdefault("inputs", {})
    for name, field in fields(own["inputs"].value).items():
        given = fields(field.value)
        spec: dict[str, Any] = {"type": "string"}
        for key, each in given.items():
            match key:
                case "type":
                    spec["type"] = _INPUTS.get(text(each.value), "string")
                case "description":
                    spec["help"] = text(each.value)
                case "required":
                    spec["required"] = text(each.value) == "true"
                case "options":
                    spec["options"] = [text(item) for item in items(each.value)]
                case "default":
                    spec["default"] = text(each.value)
                case _:
                    draft.lose(each.key, f"inputs.{name}.{key}", "it has no counterpart")
        if "default" in spec and spec["type"] in ("bool", "int"):
            spec["default"] = plain(
                Scalar(text=spec["default"], plain=True, start=0, end=0, line=0, column=0, length=1)
            )
        inputs[name] = spec


def _outputs(draft: Draft, own: dict[str, Field]) -> None:
    """What a job gets that calls this workflow."""
    outputs: dict[str, str] = {}
    for name, field in fields(own["outputs"].value if "outputs" in own else None).items():
        given = fields(field.value)
        node = given["value"].value if "value" in given else field.value
        theirs = re.sub(r"\bjobs\.([\w-]+)\.outputs\b", r"needs.\1.outputs", text(node))
        outputs[name] = template(theirs, partial(_lost, draft, node))
    if outputs:
        draft.top["outputs"] = outputs


# jobs


def _job(draft: Draft, field: Field) -> dict[str, Any]:
    own = fields(field.value)
    job = JobDraft(draft=draft, table={})
    if "uses" in own:
        return _call(draft, own)
    for key, each in own.items():
        _job_key(job, key, each)
    if not job.image:
        job.image = "ubuntu:24.04"
    steps = []
    for node in items(own["steps"].value if "steps" in own else None):
        made = _step(job, node)
        named = text(fields(node)["id"].value) if "id" in fields(node) else ""
        if named and all(step.get("id") != named for step in made):
            job.gone.add(named)
        steps += made
    if "outputs" in own:
        outputs = {name: job.template(at) for name, at, _ in pairs(own["outputs"].value)}
        job.table["outputs"] = outputs
    table = {**job.table}
    _reach_services(job, table)
    if any("run" in step for step in steps):
        table["image"] = job.image
    for key, value in (
        ("cache", job.caches),
        ("artifacts", job.artifacts),
        ("load-artifacts", job.loads),
    ):
        if value:
            table[key] = value
    table["steps"] = steps or [{"run": "true"}]
    if not steps:
        table["image"] = job.image
        draft.notes.append(
            f"no step of job '{field.key.text}' could be converted: an empty one stands there"
        )
    return table


def _call(draft: Draft, own: dict[str, Field]) -> dict[str, Any]:
    """A job that is another workflow: that one becomes a pipeline beside this one."""
    node = own["uses"].value
    path = draft.root / text(node)
    if draft.alone or not text(node).startswith("./") or not path.is_file():
        draft.lose(node, text(node), "adopt that file too, then write  uses: ./FILE")
        return {"image": "busybox", "steps": [{"name": f"in place of {text(node)}", "run": "true"}]}
    draft.calls.append(path)
    job = JobDraft(draft=draft, table={})
    for key, field in own.items():
        match key:
            case "uses" | "with":
                pass
            case "secrets":
                _passed(draft, field)
            case "name" | "needs" | "if" | "strategy" | "concurrency":
                _job_key(job, key, field)
            case _:
                draft.lose(field.key, key, _NOTHING.get(key, "it belongs to the called pipeline"))
    table = {**job.table, "uses": f"./{job_id(path.stem)}.yaml"}
    given = {
        name: job.template(field.value) if "${{" in text(field.value) else plain(field.value)
        for name, field in fields(own["with"].value if "with" in own else None).items()
    }
    return table | ({"with": given} if given else {})


def _passed(draft: Draft, field: Field) -> None:
    """Secrets need not be passed on: each pipeline declares what it reads. But under one name."""
    for name, node, value in pairs(field.value):
        if secrets_in(value) != [name]:
            why = f"the called pipeline declares its secrets itself: keep it as {name}"
            draft.lose(node, f"secrets.{name}", why)


def _job_key(job: JobDraft, key: str, field: Field) -> None:
    draft, table, node = job.draft, job.table, field.value
    match key:
        case "steps" | "outputs":
            pass
        case "name" if "${{" in text(node):
            draft.lose(field.key, "name", "a name is a plain text; cells are named by their values")
        case "name":
            table["name"] = text(node)
        case "needs":
            table["needs"] = [text(item) for item in items(node)]
        case "if":
            table["if"] = _condition(job, node)
        case "runs-on":
            _runs_on(job, node)
        case "container":
            own = fields(node)
            job.image = job.template(own["image"].value if "image" in own else node)
            job.chosen = True
            if "env" in own:
                given = {name: job.template(at) for name, at, _ in pairs(own["env"].value)}
                table["env"] = {**given, **table.get("env", {})}
            for name in own.keys() - {"image", "env"}:
                draft.lose(
                    own[name].key,
                    f"container.{name}",
                    "write `volumes` or `image` at the job",
                )
        case "services":
            table["services"] = {
                name: _service(job, each.value) for name, each in fields(node).items()
            }
        case "strategy":
            _strategy(job, field)
        case "timeout-minutes":
            table["timeout"] = f"{text(node)}m"
        case "continue-on-error":
            table["continue-on-error"] = _flag(job, node)
        case "env":
            given = {name: job.template(at) for name, at, _ in pairs(node)}
            table["env"] = {**table.get("env", {}), **given}
            _grant(job, table, given)
        case "environment":
            own = fields(node)
            name = job.template(own["name"].value if "name" in own else node)
            table["environment"] = name
            for more in own.keys() - {"name"}:
                draft.lose(own[more].key, f"environment.{more}", "it has no counterpart")
        case "concurrency":
            own = fields(node)
            name = job.template(own["group"].value if "group" in own else node)
            table["lock"] = name
        case _:
            draft.lose(field.key, key, _NOTHING.get(key, "it has no counterpart"))


def _reach_services(job: JobDraft, table: dict[str, Any]) -> None:
    """Services stand behind ports of the machine there, and behind their names here."""
    if "services" not in table:
        return
    for name, value in table.get("env", {}).items():
        if re.search(r"\b(?:localhost|127\.0\.0\.1)\b", str(value)):
            names = ", ".join(table["services"])
            job.draft.notes.append(
                f"{name}: {value}: a service is reached by its name ({names}), not on this host"
            )


def _runs_on(job: JobDraft, node: Node) -> None:
    label = text(items(node)[0]) if items(node) else ""
    system = label.partition("-")[0]
    if job.chosen:
        return
    job.image = _IMAGES.get(system, "ubuntu:24.04")
    if system not in _IMAGES:
        job.draft.lose(
            node, f"runs-on: {label}", "steps run in Linux containers; choose an `image`"
        )
    else:
        job.draft.notes.append(
            f"`{label}` has many tools that the image {job.image} has not: choose an `image` with yours"
        )


def _condition(job: JobDraft, node: Node) -> str | bool:
    found = condition(job.follow(text(node)))
    if found is None or job.reads_gone(found):
        job.draft.lose(
            node,
            f"if: {text(node)}",
            "the condition has no counterpart; as it stands, it is never true",
        )
        return False
    return found


def _flag(job: JobDraft, node: Node) -> bool | str:
    if text(node) in ("true", "false"):
        return text(node) == "true"
    found = condition(text(node))
    if found is None:
        job.lost(node)(text(node))
        return False
    return f"${{{{ {found} }}}}"


def _service(job: JobDraft, node: Node) -> dict[str, Any]:
    service: dict[str, Any] = {}
    for key, field in fields(node).items():
        match key:
            case "image":
                service["image"] = job.template(field.value)
            case "env":
                service["environment"] = {
                    name: job.template(at) for name, at, _ in pairs(field.value)
                }
                _grant(job, job.table, service["environment"])
            case "ports":
                job.draft.notes.append("a service is reached by its name: ports need not be named")
            case "options" if "--health-cmd" in text(field.value):
                service["healthcheck"] = _health(text(field.value))
            case _:
                job.draft.lose(field.key, f"services.{key}", "it has no counterpart")
    return service


def _health(options: str) -> dict[str, Any]:
    """``--health-cmd "pg_isready" --health-interval 10s`` as a healthcheck."""
    import shlex

    try:
        words = shlex.split(options)
    except ValueError:
        words = options.split()
    given: dict[str, str] = {}
    for index, word in enumerate(words):
        name, sign, value = word.partition("=")
        given[name] = value if sign else (words[index + 1] if index + 1 < len(words) else "")
    found: dict[str, Any] = {"test": ["CMD-SHELL", given["--health-cmd"]]}
    for name in ("interval", "timeout"):
        if given.get(f"--health-{name}"):
            found[name] = given[f"--health-{name}"]
    if given.get("--health-retries", "").isdecimal():
        found["retries"] = int(given["--health-retries"])
    return found


def _strategy(job: JobDraft, field: Field) -> None:
    own = fields(field.value)
    if "matrix" not in own or not isinstance(own["matrix"].value, Mapping):
        job.draft.lose(field.key, "strategy", "only a matrix that is written out has a counterpart")
        return
    matrix: dict[str, Any] = {}
    for name, each in fields(own["matrix"].value).items():
        value = plain(each.value)
        if not isinstance(value, list):
            job.draft.lose(each.key, f"matrix.{name}", "write its values out")
            continue
        simple = name in ("include", "exclude")
        if any(isinstance(item, (dict, list)) for item in value) and not simple:
            job.draft.lose(each.key, f"matrix.{name}", "values are texts, numbers or booleans")
            continue
        matrix[name] = value if simple else [_word(item) for item in value]
    strategy: dict[str, Any] = {"matrix": matrix}
    for key in ("fail-fast", "max-parallel"):
        if key in own:
            strategy[key] = plain(own[key].value)
    job.table["strategy"] = strategy


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _grant(job: JobDraft, table: dict[str, Any], values: dict[str, Any]) -> None:
    """Declare and grant the secrets that texts read."""
    names = [name for value in values.values() for name in secrets_in(str(value))]
    if not names:
        return
    job.draft.secrets |= dict.fromkeys(names)
    table["secrets"] = list(dict.fromkeys([*table.get("secrets", []), *names]))


# steps


def _step(job: JobDraft, node: Node) -> list[dict[str, Any]]:
    own = fields(node)
    step: dict[str, Any] = {}
    for key, field in own.items():
        match key:
            case "id":
                step["id"] = text(field.value)
            case "name":
                step["name"] = template(text(field.value), lambda found: None)
            case "if":
                step["if"] = _condition(job, field.value)
            case "env":
                step["env"] = {name: job.template(at) for name, at, _ in pairs(field.value)}
            case "timeout-minutes":
                step["timeout"] = f"{text(field.value)}m"
            case "continue-on-error":
                step["continue-on-error"] = _flag(job, field.value)
            case "working-directory":
                step["working-directory"] = text(field.value)
            case "shell" if text(field.value).split()[:1] in (["bash"], ["sh"]):
                step["shell"] = text(field.value).split()[0]
            case "run" | "uses" | "with":
                pass
            case _:
                job.draft.lose(field.key, key, "it has no counterpart")
    if "run" in own:
        env = step.setdefault("env", {})
        node = own["run"].value
        written, missing = renamed(text(node))
        for name in missing:
            job.draft.lose(node, f"${name}", "it is not there; outputs go to $LINKSPAN_OUTPUT")
        step["run"] = script(job.follow(written), job.lost(node), env, job.reads_gone)
        if needs_bash(written):
            step.setdefault("shell", "bash")
        _grant(job, step, env)
        if not env:
            del step["env"]
        return [step]
    if "uses" not in own:
        job.draft.lose(node, "step", "it has neither `run` nor `uses`")
        return []
    if is_local(own):
        return [each for inner in composite_steps(job, own) for each in _step(job, inner)]
    return adopt_action(job, own, step)
