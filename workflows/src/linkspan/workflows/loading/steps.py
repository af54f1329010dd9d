"""``steps``: scripts, verbs, steps side by side, and waits."""

import re
from collections.abc import Sequence as Seq
from typing import Final

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.workflows.loading.common import read_folder, read_retry, read_shell
from linkspan.workflows.loading.keys import STEP, UNDO
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.loading.uses import Used, read_uses
from linkspan.workflows.model import OnFailure, Step, Undo
from linkspan.workflows.parse import Field, Mapping, Node, Sequence
from linkspan.workflows.reader import NAME
from linkspan.workflows.script import check_script

_KINDS: Final = ("run", "uses", "parallel", "wait", "cancel")
_REPORTS: Final = ("junit",)
_ALONE: Final = ("id", "name", "if")
"""Keys beside ``parallel``, ``wait`` and ``cancel``."""


def read_steps(scene: Scene, field: Field | None, what: str) -> tuple[Step, ...]:
    """``steps`` of a job."""
    if field is None:
        return ()
    r = scene.r
    nodes = r.items(field.value, f"'steps' of {what}")
    if isinstance(field.value, Sequence) and not nodes:
        r.fault("LS1008", f"{what} has no step", field.value)
    taken: dict[str, Step] = {}
    steps = _steps(scene, nodes, what, taken, "")
    _check_waits(scene, steps)
    return tuple(steps)


def _steps(
    scene: Scene, nodes: Seq[Node], what: str, taken: dict[str, Step], prefix: str
) -> list[Step]:
    steps: list[Step] = []
    for number, node in enumerate(nodes, 1):
        step = _step(scene, node, f"{prefix}{number}", what, taken)
        if step is None:
            continue
        if step.id in taken:
            first = taken[step.id]
            scene.r.fault(
                "LS1014",
                f"step id '{step.id}' is written twice in {what}",
                step.span,
                secondary=scene.r.labels(first.span, "first definition"),
            )
        taken[step.id] = step
        steps.append(step)
    return steps


def _step(scene: Scene, node: Node, number: str, job: str, taken: dict[str, Step]) -> Step | None:
    r, what = scene.r, f"step {number} of {job}"
    if not isinstance(node, Mapping):
        helps = [f"- run: {r.raw(node)}"] if not isinstance(node, Sequence) else []
        r.fault("LS1010", f"{what} must be a mapping, with `run` or `uses`", node, helps=helps)
        return None
    fields = r.table(node, what, STEP)
    kind = _kind(scene, fields, node, what)
    used = Used()
    if "uses" in fields:
        used = read_uses(scene, fields["uses"].value, fields)
    written = scene.get(fields, "id", lambda n: _id(scene, n))
    inner: list[Step] = []
    if "parallel" in fields:
        inner = _parallel(scene, fields["parallel"], number, job, taken)
    defaults = scene.defaults
    retry = scene.get(fields, "retry", lambda n: read_retry(scene, n))
    timeout = scene.get(fields, "timeout", lambda n: r.duration(n, "'timeout'"))
    verb_part = (used.verb or kind or "run").replace("/", "-")
    return Step(
        id=written or f"{verb_part}-{number.replace('.', '-')}",
        named=written is not None,
        name=scene.text(fields, "name"),
        condition=scene.get(fields, "if", r.condition),
        run=scene.get(fields, "run", lambda n: check_script(r, n)),
        verb=used.verb,
        verb_version=used.version,
        settings=used.settings,
        setting_nodes=used.nodes,
        parallel=tuple(inner),
        background=scene.given(fields, "background", r.boolean, False),
        wait=scene.words(fields, "wait"),
        cancel=scene.words(fields, "cancel"),
        image=scene.template(fields, "image"),
        env=scene.texts(fields.get("env"), "'env'"),
        secrets=scene.granted(fields),
        shell=scene.get(fields, "shell", lambda n: read_shell(scene, n)) or defaults.shell,
        working_directory=scene.get(fields, "working-directory", lambda n: read_folder(scene, n))
        or defaults.working_directory,
        sources=scene.words(fields, "sources"),
        generates=scene.words(fields, "generates"),
        reports=_reports(scene, fields.get("reports")),
        retry=defaults.retry if retry is None else retry,
        timeout_s=defaults.timeout_s if timeout is None else timeout,
        grace_s=scene.given(fields, "grace", r.duration, 10.0),
        continue_on_error=scene.flag(fields, "continue-on-error"),
        on_failure=scene.get(fields, "on-failure", lambda n: _on_failure(scene, n)),
        undo=scene.get(fields, "undo", lambda n: _undo(scene, n)),
        span=(fields["id"].value if "id" in fields else node).span,
        verb_span=used.span,
    )


def _kind(scene: Scene, fields: dict[str, Field], node: Node, what: str) -> str:
    """Which of ``run``, ``uses`` … a step has; exactly one is right."""
    r = scene.r
    kinds = [kind for kind in _KINDS if kind in fields]
    if not kinds:
        r.fault("LS1008", f"{what} needs `run` or `uses`", node, helps=["run: COMMAND"])
        return ""
    if len(kinds) > 1:
        r.fault("LS1001", f"{what} has both `{kinds[0]}` and `{kinds[1]}`", fields[kinds[1]].key)
    kind = kinds[0]
    if "with" in fields and kind != "uses":
        r.fault(
            "LS1001",
            f"'with' belongs to `uses`, {what} has `{kind}`",
            fields["with"].key,
            helps=["give values to a script with `env`"] if kind == "run" else [],
        )
    if kind in ("parallel", "wait", "cancel"):
        for name in fields.keys() - {*_ALONE, *_KINDS, "with"}:
            r.fault(
                "LS1001",
                f"'{name}' cannot stand beside `{kind}` in {what}",
                fields[name].key,
                helps=["write it at the steps themselves"] if kind == "parallel" else [],
            )
    return kind


def _parallel(
    scene: Scene, field: Field, number: str, job: str, taken: dict[str, Step]
) -> list[Step]:
    nodes = scene.r.items(field.value, "'parallel'")
    if isinstance(field.value, Sequence) and not nodes:
        scene.r.fault("LS1008", "'parallel' has no step", field.value)
    steps = _steps(scene, nodes, job, taken, f"{number}.")
    kept = []
    for step in steps:
        if step.parallel or step.wait or step.cancel or step.background:
            scene.r.fault(
                "LS1001", "steps inside `parallel` are scripts and verbs that all end", step.span
            )
        else:
            kept.append(step)
    return kept


def _check_waits(scene: Scene, steps: Seq[Step]) -> None:
    """``wait`` and ``cancel`` name background steps that stand before them."""
    background: list[str] = []
    for step in steps:
        for name in (*step.wait, *step.cancel):
            if name not in background:
                near = did_you_mean(name, background)
                word = "wait" if name in step.wait else "cancel"
                scene.r.fault(
                    "LS1101",
                    f"'{word}' names '{name}', which is no background step before it",
                    step.span,
                    helps=[f"did you mean '{near}'?"] if near else ["background: true"],
                )
        if step.background:
            background.append(step.id)


def _id(scene: Scene, node: Node) -> str | None:
    text = scene.r.text(node, "'id'")
    if text is not None and NAME.fullmatch(text) is None:
        scene.r.fault(
            "LS1014",
            f"'{text}' is not a valid step id",
            node,
            helps=["use letters, digits, '_' and '-', not beginning with a digit or '-'"],
        )
        return None
    return text


def _on_failure(scene: Scene, node: Node) -> OnFailure | None:
    text = scene.r.text(node, "'on-failure'")
    if text is None:
        return None
    action, _, target = text.partition(":")
    if text == "pause":
        return OnFailure(action="pause")
    if action == "rollback" and (target or ":" not in text):
        return OnFailure(action="rollback", target=target)
    if text == "leave":
        return OnFailure(action="leave")
    scene.r.fault(
        "LS1013",
        f"'on-failure' must be rollback, rollback:STEP, pause or leave, found '{text}'",
        node,
    )
    return None


def _undo(scene: Scene, node: Node) -> Undo | None:
    fields = scene.r.table(node, "'undo'", UNDO)
    if not isinstance(node, Mapping):
        return None
    if not scene.r.require(fields, "uses", "'undo'", node, "uses: VERB"):
        return None
    used = read_uses(scene, fields["uses"].value, fields)
    return Undo(verb=used.verb, settings=used.settings, span=node.span)


def _reports(scene: Scene, field: Field | None) -> dict[str, str]:
    if field is None:
        return {}
    found: dict[str, str] = {}
    for name, each in scene.r.entries(field.value, "'reports'").items():
        if name not in _REPORTS:
            helps = [f"kinds: {', '.join(_REPORTS)}"]
            scene.r.fault("LS1013", f"there is no kind of report '{name}'", each.key, helps=helps)
            continue
        path = scene.r.text(each.value, f"'{name}'")
        if path is not None and (path.startswith("/") or ".." in re.split("/", path)):
            scene.r.fault("LS1013", "a report lies in the workspace", each.value)
        elif path is not None:
            found[name] = path
    return found
