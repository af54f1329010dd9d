"""An action of the repository itself: the steps that it is made of, in place of its call."""

import re
from collections.abc import Iterator
from typing import Final

import attrs

from linkspan.workflows.adopting.draft import fields, items, job_id, pairs, text
from linkspan.workflows.adopting.github_job import JobDraft
from linkspan.workflows.parse import Document, Field, Mapping, Node, ParseFailed, Scalar, Sequence

_FILES: Final = ("action.yml", "action.yaml")
_MAX_DEEP: Final = 10
_PLACE: Final = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_INPUT: Final = re.compile(r"(?<![\w.])inputs\.([A-Za-z_][\w-]*)")
_WHY: Final = {
    "docker": "build its image with the verb `build`, and give a step that `image`",
    "": "its `action.yml` says nothing that could be run here",
}
_PATH: Final = re.compile(r"\$\{?GITHUB_ACTION_PATH\b\}?")


def is_local(own: dict[str, Field]) -> bool:
    """Whether a step uses an action of the repository."""
    return text(own["uses"].value).startswith("./")


def composite_steps(job: JobDraft, own: dict[str, Field], deep: int = 0) -> Iterator[Node]:
    """The steps of a local composite action, with what the call gives put in.

    Its outputs are noted in ``job.moved``, so that who reads them reads its steps.
    """
    node = own["uses"].value
    folder = text(node).rstrip("/")
    document = _action(job, node, folder)
    if document is None:
        return
    top = fields(document.root)
    runs = fields(top["runs"].value if "runs" in top else None)
    using = text(runs["using"].value) if "using" in runs else ""
    if using != "composite" or deep >= _MAX_DEEP:
        why = _WHY.get(using, "it is a program for the forge's own machines")
        why = "actions call each other in a circle" if deep >= _MAX_DEEP else why
        job.draft.lose(node, f"uses: {text(node)}", why)
        return
    call = _Call(
        job=job,
        file=document.file,
        folder=folder.removeprefix("./"),
        prefix=job_id(text(own["id"].value) if "id" in own else folder.rpartition("/")[2]),
        given=_given(job, own, top),
    )
    if "id" in own and "outputs" in top:
        for name, field in fields(top["outputs"].value).items():
            given = fields(field.value)
            value = call.filled(text(given["value"].value)) if "value" in given else ""
            inner = re.fullmatch(r"\s*\$\{\{\s*(.*?)\s*\}\}\s*", value, re.DOTALL)
            if inner:
                job.moved[f"steps.{text(own['id'].value)}.outputs.{name}"] = inner[1]
    for item in items(runs["steps"].value if "steps" in runs else None):
        made = call.step(own, item)
        inside = fields(made)
        if "uses" in inside and is_local(inside):
            yield from composite_steps(job, inside, deep + 1)
        else:
            yield made


def _action(job: JobDraft, node: Node, folder: str) -> Document | None:
    try:
        for name in _FILES:
            document = job.draft.read(f"{folder}/{name}")
            if document is not None:
                return document
    except ParseFailed as failed:
        job.draft.lose(node, f"uses: {text(node)}", f"it cannot be read: {failed}")
        return None
    job.draft.lose(node, f"uses: {text(node)}", f"there is no {folder}/{_FILES[0]} here")
    return None


def _given(job: JobDraft, own: dict[str, Field], top: dict[str, Field]) -> dict[str, str]:
    """Values of the action's inputs as the call writes them, or their defaults."""
    found: dict[str, str] = {}
    declared = fields(top["inputs"].value if "inputs" in top else None)
    for name, field in declared.items():
        spec = fields(field.value)
        found[name] = text(spec["default"].value) if "default" in spec else ""
    for name, field in fields(own["with"].value if "with" in own else None).items():
        if name not in declared:
            job.draft.lose(field.key, f"with.{name}", "the action has no such input")
        found[name] = text(field.value)
    return found


@attrs.frozen(kw_only=True)
class _Call:
    """One call of an action.

    Attributes:
        folder: Of the action, relative to the repository.
        prefix: Before the ids of its steps, which are the job's steps now.
        given: Input -> text, which may hold expressions of the caller.
    """

    job: JobDraft
    file: str
    folder: str
    prefix: str
    given: dict[str, str]

    def step(self, own: dict[str, Field], node: Node) -> Node:
        """One of its steps with the call's values, and with what the call says about all of them."""
        made = self._node(node)
        if not isinstance(made, Mapping):
            return made
        table = fields(made)
        if "if" in own:
            table["if"] = _both(own["if"], table.get("if"))
        for key in ("timeout-minutes", "continue-on-error"):
            if key in own and key not in table:
                table[key] = own[key]
        if "env" in own:
            table["env"] = self._env(own["env"], table.get("env"))
        entries = tuple((field.key, field.value) for field in table.values())
        return self.job.draft.changed(made, entries=entries)

    def _env(self, outer: Field, inner: Field | None) -> Field:
        own = dict.fromkeys(name for name, _, _ in pairs(inner.value)) if inner else {}
        fresh = [field for name, field in fields(outer.value).items() if name not in own]
        entries: tuple[tuple[Node, Node], ...] = tuple((each.key, each.value) for each in fresh)
        if inner is not None and isinstance(inner.value, Mapping):
            entries += inner.value.entries
        assert isinstance(outer.value, Mapping)
        return attrs.evolve(outer, value=self.job.draft.changed(outer.value, entries=entries))

    def _node(self, node: Node, key: str = "") -> Node:
        change = self.job.draft.changed
        match node:
            case Scalar() if key == "id":
                return change(node, text=f"{self.prefix}-{node.text}")
            case Scalar() if key == "if" and "${{" not in node.text:
                return change(node, text=self._expression(node.text))
            case Scalar():
                return change(node, text=self.filled(node.text))
            case Sequence():
                return change(node, items=tuple(self._node(item) for item in node.items))
            case Mapping():
                entries = tuple(
                    (name, self._node(value, text(name))) for name, value in node.entries
                )
                return change(node, entries=entries)

    def filled(self, source: str) -> str:
        """A text of the action with what the call gives: pasted, as there."""
        source = _PATH.sub(f"/workspace/{self.folder}", source)

        def replaced(match: re.Match[str]) -> str:
            inner = match[1].strip()
            alone = _INPUT.fullmatch(inner)
            if alone:
                return self.given.get(alone[1], "")
            if inner == "github.action_path":
                return f"/workspace/{self.folder}"
            return f"${{{{ {self._expression(inner)} }}}}"

        return _PLACE.sub(replaced, source)

    def _expression(self, source: str) -> str:
        named = _INPUT.sub(lambda match: _quoted(self.given.get(match[1], "")), source)
        return re.sub(r"(?<![\w.])steps\.([\w-]+)", rf"steps.{self.prefix}-\1", named)


def _both(outer: Field, inner: Field | None) -> Field:
    """Two conditions that must hold."""
    if inner is None:
        return outer
    parts = [f"({_bare(field.value)})" for field in (outer, inner)]
    assert isinstance(outer.value, Scalar)
    return attrs.evolve(outer, value=attrs.evolve(outer.value, text=" && ".join(parts)))


def _bare(node: Node) -> str:
    whole = re.fullmatch(r"\s*\$\{\{(.*)\}\}\s*", text(node), re.DOTALL)
    return (whole[1] if whole else text(node)).strip()


def _quoted(value: str) -> str:
    """A value of the call as an expression of theirs."""
    places = list(_PLACE.finditer(value))
    if len(places) == 1 and places[0][0] == value.strip():
        return f"({places[0][1].strip()})"
    if not places:
        return "'" + value.replace("'", "''") + "'"
    numbered: list[str] = []
    at = 0
    for number, place in enumerate(places):
        numbered += [value[at : place.start()].replace("'", "''"), f"{{{number}}}"]
        at = place.end()
    numbered.append(value[at:].replace("'", "''"))
    values = ", ".join(place[1].strip() for place in places)
    return f"format('{''.join(numbered)}', {values})"
