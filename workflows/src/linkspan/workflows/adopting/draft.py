"""A pipeline in the making, and what of its source had no counterpart."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import attrs
import yaml

from linkspan.workflows.parse import (
    Document,
    Field,
    Mapping as MappingNode,
    Node,
    Scalar,
    Sequence,
    decode,
    parse,
)
from linkspan.workflows.reader import core_value
from linkspan.workflows.verbs import Verbs


@attrs.frozen(kw_only=True)
class Loss:
    """Something that was left out or changed in meaning.

    Attributes:
        place: ``file:line``.
        what: As the source has it.
        why: And what to do instead.
    """

    place: str
    what: str
    why: str


@attrs.define(kw_only=True)
class Draft:
    """A pipeline as plain data, in the order in which it will be written.

    Attributes:
        root: The folder that the source's local names start from.
        alone: No other pipeline is written beside this one.
        secrets: Names that steps are granted; they are declared at the top.
        notes: What is fine, but good to know.
        calls: Files that must be adopted, too.
    """

    name: str
    source: Document
    verbs: Verbs
    root: Path = Path()
    alone: bool = False
    top: dict[str, Any] = attrs.field(factory=dict)
    jobs: dict[str, Any] = attrs.field(factory=dict)
    secrets: dict[str, None] = attrs.field(factory=dict)
    losses: list[Loss] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    calls: list[Path] = attrs.field(factory=list)
    _files: dict[Node, str] = attrs.field(factory=dict)

    def read(self, name: str, *, list_tag: str = "") -> Document | None:
        """Another file of the repository; None if there is none, or it leads out of it.

        Raises:
            ParseFailed: It is not YAML.
        """
        path = self.root / name.lstrip("/")
        if not path.resolve().is_relative_to(self.root.resolve()) or not path.is_file():
            return None
        document = parse(decode(path.read_bytes(), str(path)), str(path), list_tag=list_tag)
        if document.root is not None:
            self.belongs(document.root, str(path))
        return document

    def belongs(self, node: Node, file: str) -> None:
        """Note that a node, and all in it, comes from another file than the source."""
        self._files[node] = file
        match node:
            case Sequence():
                for item in node.items:
                    self.belongs(item, file)
            case MappingNode():
                for key, value in node.entries:
                    self.belongs(key, file)
                    self.belongs(value, file)
            case Scalar():
                pass

    def changed(self, node: Node, **changes: Any) -> Node:
        """A node with other contents, which still comes from where it was written."""
        made = attrs.evolve(node, **changes)
        if node in self._files:
            self._files[made] = self._files[node]
        return made

    def file_of(self, node: Node) -> str:
        """The file in which a node was written."""
        return self._files.get(node, self.source.file)

    def lose(self, node: Node, what: str, why: str) -> None:
        """Note something that has no counterpart."""
        place = f"{self.file_of(node)}:{node.span.line}"
        loss = Loss(place=place, what=what, why=why)
        if loss not in self.losses:
            self.losses.append(loss)

    def setting(
        self, verb: str, settings: dict[str, Any], key: str, value: Any, node: Node
    ) -> None:
        """Write a setting of a verb, if the installed verb has it."""
        found = self.verbs.get(verb)
        if found is None or key in found.manifest.settings:
            settings[key] = value
        else:
            self.lose(node, key, f"`{verb}` has no setting '{key}'")


def fields(node: Node | None) -> dict[str, Field]:
    """The entries of a mapping, merged ones too; none for what is no mapping."""
    if not isinstance(node, MappingNode):
        return {}
    found: dict[str, Field] = {}
    for key, value in node.entries:
        if not isinstance(key, Scalar):
            continue
        if key.plain and key.text == "<<":
            sources = value.items if isinstance(value, Sequence) else (value,)
            for source in sources:
                found = {**fields(source), **found}
        else:
            found[key.text] = Field(key=key, value=value)
    return found


def items(node: Node | None) -> tuple[Node, ...]:
    """The items of a list, or the one value that stands in its place."""
    if node is None:
        return ()
    return node.items if isinstance(node, Sequence) else (node,)


def text(node: Node | None) -> str:
    """A scalar's text; empty for what is none."""
    return node.text if isinstance(node, Scalar) else ""


def plain(node: Node) -> Any:
    """A node as plain data, typed as YAML 1.2 does; texts stay as they were written (``3.10``)."""
    match node:
        case Scalar():
            value = core_value(node)
            return node.text if isinstance(value, float) else value
        case Sequence():
            return [plain(item) for item in node.items]
        case MappingNode():
            return {name: plain(field.value) for name, field in fields(node).items()}


def pairs(node: Node | None) -> Iterator[tuple[str, Node, str]]:
    """Names and texts of an environment: a mapping, or a list of ``NAME=value``."""
    if isinstance(node, Sequence):
        for item in node.items:
            name, _, value = text(item).partition("=")
            yield name, item, value
        return
    for name, field in fields(node).items():
        yield name, field.value, text(field.value)


class _Dumper(yaml.SafeDumper):
    """Block style, texts of several lines as blocks, lists indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their key."""
        del indentless
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def written(draft: Draft) -> str:
    """The pipeline's text, with a comment that says where it came from and what was lost."""
    secrets = {name: {"from": "file"} for name in draft.secrets}
    body: dict[str, Any] = {"linkspan": "v1", "name": draft.name, **draft.top}
    if secrets:
        body["secrets"] = secrets
    body["jobs"] = draft.jobs
    parts = []
    for key, value in body.items():
        dumped = yaml.dump(
            {key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
        )
        # `on` is a text to us, whatever YAML 1.1 thinks of it.
        parts.append(dumped.replace("'on':", "on:", 1) if key == "on" else dumped)
    head = [f"# Adopted from {draft.source.file}."]
    if draft.losses:
        head.append("# What had no counterpart:")
        head += [
            f"#   {loss.place}  {_line(loss.what)}: {_line(loss.why)}" for loss in draft.losses
        ]
    plain_keys = {"linkspan", "name"}
    lines = "".join(
        part if key in plain_keys else f"\n{part}" for key, part in zip(body, parts, strict=True)
    )
    return "\n".join(head) + "\n" + lines


def _line(words: str) -> str:
    return " ".join(words.split())


def job_id(name: str, taken: Collection[str] = ()) -> str:
    """A name that an expression can use, not yet taken."""
    found = "".join(
        char if char.isascii() and (char.isalnum() or char in "_-") else "-" for char in name
    )
    found = found.strip("-") or "job"
    if not (found[0].isalpha() or found[0] == "_"):
        found = f"j-{found}"
    unique, number = found, 2
    while unique in taken:
        unique, number = f"{found}-{number}", number + 1
    return unique
