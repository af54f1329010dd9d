"""``steps``: scripts, verbs, steps side by side, and waits."""

import re
from collections.abc import Callable, Mapping, Sequence as Seq
from typing import Any, Final

from linkspan.sdk.diagnostics import did_you_mean
from linkspan.workflows.loading.common import read_folder, read_retry, read_shell
from linkspan.workflows.loading.keys import STEP, UNDO
from linkspan.workflows.loading.scene import Scene
from linkspan.workflows.loading.uses import Used, read_uses
from linkspan.workflows.model import OnFailure, Step, Undo
from linkspan.workflows.parse import Field, Mapping as MappingNode, Node, Sequence
from linkspan.workflows.reader import NAME
from linkspan.workflows.script import check_script

_KINDS: Final = ("run", "uses", "parallel", "wait", "cancel")
_REPORTS: Final = ("junit",)
_ALONE: Final = ("id", "name", "if")
"""Keys beside ``parallel``, ``wait`` and ``cancel``."""
_NO_VERB: Final = Used()


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
    if not isinstance(node, MappingNode):
        helps = [f"- run: {r.raw(node)}"] if not isinstance(node, Sequence) else []
        r.fault("LS1010", f"{what} must be a mapping, with `run` or `uses`", node, helps=helps)
        return None
    fields = r.table(node, what, STEP)
    kind = _kind(scene, fields, node, what)
    used = read_uses(scene, fields["uses"].value, fields) if "uses" in fields else _NO_VERB
    written = scene.get(fields, "id", lambda n: _id(scene, n))
    inner: list[Step] = []
    if "parallel" in fields:
        inner = _parallel(scene, fields["parallel"], number, job, taken)
    parts = _parts(scene, fields)
    undo = parts.get("undo")
    named = (*used.granted, *(undo.granted if undo else ()))
    if named:
        parts["secrets"] = tuple(dict.fromkeys((*parts.get("secrets", ()), *named)))
    verb_part = (used.verb or kind or "run").replace("/", "-")
    return Step(
        id=written or f"{verb_part}-{number.replace('.', '-')}",
        named=written is not None,
        verb=used.verb,
        verb_version=used.version,
        settings=used.settings,
        setting_nodes=used.nodes,
        parallel=tuple(inner),
        span=(fields["id"].value if "id" in fields else node).span,
        verb_span=used.span,
        **parts,
    )


_Fields = Mapping[str, Field]
_READERS: Final[Mapping[str, tuple[str, Callable[[Scene, _Fields], Any]]]] = {
    "name": ("name", lambda s, f: s.text(f, "name")),
    "if": ("condition", lambda s, f: s.get(f, "if", s.r.condition)),
    "run": ("run", lambda s, f: check_script(s.r, f["run"].value)),
    "background": ("background", lambda s, f: s.given(f, "background", s.r.boolean, None)),
    "wait": ("wait", lambda s, f: s.words(f, "wait")),
    "cancel": ("cancel", lambda s, f: s.words(f, "cancel")),
    "image": ("image", lambda s, f: s.template(f, "image")),
    "env": ("env", lambda s, f: s.texts(f["env"], "'env'")),
    "secrets": ("secrets", lambda s, f: s.granted(f)),
    "shell": ("shell", lambda s, f: read_shell(s, f["shell"].value)),
    "working-directory": (
        "working_directory",
        lambda s, f: read_folder(s, f["working-directory"].value),
    ),
    "sources": ("sources", lambda s, f: s.words(f, "sources")),
    "generates": ("generates", lambda s, f: s.words(f, "generates")),
    "reports": ("reports", lambda s, f: _reports(s, f["reports"])),
    "retry": ("retry", lambda s, f: read_retry(s, f["retry"].value)),
    "timeout": ("timeout_s", lambda s, f: s.given(f, "timeout", s.r.duration, None)),
    "grace": ("grace_s", lambda s, f: s.given(f, "grace", s.r.duration, None)),
    "continue-on-error": ("continue_on_error", lambda s, f: s.flag(f, "continue-on-error")),
    "on-failure": ("on_failure", lambda s, f: _on_failure(s, f["on-failure"].value)),
    "undo": ("undo", lambda s, f: _undo(s, f["undo"].value)),
}
"""Key → the part of a step that it gives, and how that is read; None where a fault was noted."""


def _parts(scene: Scene, fields: _Fields) -> dict[str, Any]:
    """What the keys say that a step has, and what ``defaults`` say in place of others.

    Most steps have two or three of twenty keys: nothing is done for the others.
    """
    defaults = scene.defaults
    parts: dict[str, Any] = {
        "shell": defaults.shell,
        "working_directory": defaults.working_directory,
        "retry": defaults.retry,
        "timeout_s": defaults.timeout_s,
    }
    for key in fields:
        if key in _READERS:
            name, read = _READERS[key]
            value = read(scene, fields)
            if value is not None:
                parts[name] = value
    return parts


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
    if not isinstance(node, MappingNode):
        return None
    if not scene.r.require(fields, "uses", "'undo'", node, "uses: VERB"):
        return None
    used = read_uses(scene, fields["uses"].value, fields)
    return Undo(verb=used.verb, settings=used.settings, granted=used.granted, span=node.span)


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
