"""What a GitLab CI file is made of: local includes, ``extends`` and ``!reference`` put in."""

from pathlib import Path
from typing import Final

import attrs

from linkspan.workflows.adopting.draft import Draft, fields, items, text
from linkspan.workflows.parse import Field, Mapping, Node, ParseFailed, Scalar, Sequence

REFERENCE: Final = "!reference"
_MAX_DEEP: Final = 10
"""Of files, of jobs that extend others, and of references: GitLab has the like."""
_ELSEWHERE: Final = "it lies elsewhere: copy the file into the repository and include it as `local`"


def whole_file(draft: Draft) -> dict[str, Field]:
    """The top of the file, with the files that it includes below what it says itself."""
    return _including(draft, fields(draft.source.root), ())


def whole_job(draft: Draft, top: dict[str, Field], node: Node) -> dict[str, Field]:
    """A job's keys with those that it extends, and what it refers to in other jobs."""
    return {
        name: attrs.evolve(field, value=_resolved(draft, top, field.value, 0))
        for name, field in _extended(draft, top, node, ()).items()
    }


def _including(draft: Draft, top: dict[str, Field], seen: tuple[str, ...]) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for item in items(top["include"].value) if "include" in top else ():
        own = fields(item)
        node = own["local"].value if "local" in own else item
        name = text(node)
        if "://" in name or (own and "local" not in own):
            draft.lose(item, f"include: {name or ', '.join(own)}", _ELSEWHERE)
            continue
        for key in own.keys() - {"local"}:
            draft.lose(own[key].key, f"include.{key}", "the file is always included")
        for path in _local(draft, name):
            if path in seen or len(seen) >= _MAX_DEEP:
                continue
            inner = _read(draft, node, path)
            found = _merged(draft, found, _including(draft, inner, (*seen, path)))
        if not _local(draft, name):
            draft.lose(node, f"include: {name}", "there is no such file here")
    own_keys = {name: field for name, field in top.items() if name != "include"}
    return _merged(draft, found, own_keys)


def _local(draft: Draft, name: str) -> list[str]:
    """Paths that an include means, relative to the root: it may have ``*`` and ``**``."""
    name = name.lstrip("/")
    if not name or ".." in Path(name).parts:
        return []
    if "*" not in name:
        return [name] if (draft.root / name).is_file() else []
    paths = sorted(path for path in draft.root.glob(name) if path.is_file())
    return [str(path.relative_to(draft.root)) for path in paths]


def _read(draft: Draft, node: Node, path: str) -> dict[str, Field]:
    try:
        document = draft.read(path, list_tag=REFERENCE)
    except ParseFailed as failed:
        draft.lose(node, f"include: {path}", f"it cannot be read: {failed}")
        return {}
    if document is None:
        draft.lose(node, f"include: {path}", "it leads out of the repository")
        return {}
    return fields(document.root)


def _extended(
    draft: Draft, top: dict[str, Field], node: Node, seen: tuple[str, ...]
) -> dict[str, Field]:
    own = fields(node)
    merged: dict[str, Field] = {}
    for item in items(own["extends"].value) if "extends" in own else ():
        name = text(item)
        if name not in top:
            draft.lose(item, f"extends: {name}", "there is no such job here")
        elif name not in seen and len(seen) < _MAX_DEEP:
            merged = _merged(draft, merged, _extended(draft, top, top[name].value, (*seen, name)))
    return _merged(draft, merged, {name: field for name, field in own.items() if name != "extends"})


def _merged(draft: Draft, below: dict[str, Field], above: dict[str, Field]) -> dict[str, Field]:
    """Tables are put together key by key, however deep; of everything else the upper one counts."""
    found = dict(below)
    for name, field in above.items():
        before = found.get(name)
        if (
            before is not None
            and isinstance(before.value, Mapping)
            and isinstance(field.value, Mapping)
        ):
            both = _merged(draft, fields(before.value), fields(field.value))
            entries = tuple((each.key, each.value) for each in both.values())
            field = attrs.evolve(field, value=draft.changed(field.value, entries=entries))
        found[name] = field
    return found


def _resolved(draft: Draft, top: dict[str, Field], node: Node, deep: int) -> Node:
    """A value with ``!reference [JOB, KEY, …]`` replaced by what stands there."""
    match node:
        case Scalar():
            return node
        case Mapping():
            entries = tuple(
                (key, _resolved(draft, top, value, deep)) for key, value in node.entries
            )
            return draft.changed(node, entries=entries)
        case Sequence(tag=tag) if tag == REFERENCE:
            return _referred(draft, top, node, deep)
        case Sequence():
            return draft.changed(node, items=tuple(_spliced(draft, top, node, deep)))


def _spliced(draft: Draft, top: dict[str, Field], node: Sequence, deep: int) -> list[Node]:
    """Items of a list; a list that is referred to gives its own."""
    found: list[Node] = []
    for item in node.items:
        value = _resolved(draft, top, item, deep)
        refers = isinstance(item, Sequence) and item.tag == REFERENCE
        found += value.items if refers and isinstance(value, Sequence) else [value]
    return found


def _referred(draft: Draft, top: dict[str, Field], node: Sequence, deep: int) -> Node:
    names = [text(item) for item in node.items]
    found = _named(draft, top, names)
    if found is None or deep >= _MAX_DEEP:
        why = "there is nothing of that name" if found is None else "references lead in a circle"
        draft.lose(node, f"!reference [{', '.join(names)}]", why)
        return draft.changed(node, items=(), tag="")
    return _resolved(draft, top, found, deep + 1)


def _named(draft: Draft, top: dict[str, Field], names: list[str]) -> Node | None:
    if not names or names[0] not in top:
        return None
    found = top[names[0]].value
    table = _extended(draft, top, found, (names[0],))
    for name in names[1:]:
        if name not in table:
            return None
        found = table[name].value
        table = fields(found)
    return found
