"""Typed reading of nodes: each method returns a value or notes a fault and returns None.

Nothing is cast silently: a quoted scalar is always text, an unquoted one takes the type that the
schema asks for, and what does not fit is a fault with its place.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping as MappingType, Sequence as Seq
from typing import Final, Literal

import attrs

from linkspan.sdk.diagnostics import Diagnostic, Edit, Label, Span, did_you_mean
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.units import parse_duration, parse_size
from linkspan.workflows.expressions import ExpressionInvalid, parse
from linkspan.workflows.expressions.faults import ExpressionFault
from linkspan.workflows.foreign import foreign_edits
from linkspan.workflows.parse import Document, Field, Mapping, Node, Scalar, Sequence
from linkspan.workflows.values import (
    OPEN,
    Expression,
    Template,
    TemplateInvalid,
    parse_expression,
    parse_template,
    placeholders,
)

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NULLS = {"", "~", "null"}
_OTHER_BOOLS = {"yes", "no", "on", "off", "y", "n"}
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""Ids of jobs, steps, inputs, outputs and services: what an expression can name."""


@attrs.frozen(kw_only=True)
class Keys:
    """The keys of one kind of table.

    Attributes:
        table: Its name.
        known: Those of the language.
        foreign: Habits of other tools: key → what to write here.
        names: Those of ``known``, to look for one.
    """

    table: str
    known: tuple[str, ...]
    foreign: MappingType[str, str] = attrs.field(factory=dict)
    names: frozenset[str] = attrs.field(
        init=False, default=attrs.Factory(lambda self: frozenset(self.known), takes_self=True)
    )


class Reader:
    """Reads the nodes of one document and gathers what is wrong with them."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.diagnostics: list[Diagnostic] = []

    def labels(self, span: Span, text: str) -> tuple[Label, ...]:
        """One second place."""
        return (Label(span=span, text=text),)

    def inside(self, node: Node) -> Span:
        """The span of a text without its quotes."""
        quoted = isinstance(node, Scalar) and self.document.text[node.start : node.start + 1]
        if quoted in ("'", '"') and node.span.length > 2:
            return attrs.evolve(node.span, column=node.span.column + 1, length=node.span.length - 2)
        return node.span

    def span_edits(self, span: Span, old: str, new: str | None) -> tuple[Edit, ...]:
        """The edit that writes ``new`` for ``old`` at a span; none if it is not what stands there."""
        start = self.document.index_at(span)
        if new is None or not self.document.text.startswith(old, start):
            return ()
        return (Edit(start=start, end=start + len(old), text=new),)

    def insertion(self, at: int, text: str) -> Edit:
        """An edit that only adds."""
        return Edit(start=at, end=at, text=text)

    def replacement(self, node: Node, text: str) -> Edit:
        """An edit of the whole of a node."""
        return Edit(start=node.start, end=node.end, text=text)

    def fault(
        self,
        id_: str,
        headline: str,
        place: Node | Span,
        label: str = "",
        *,
        secondary: Seq[Label] = (),
        notes: Seq[str] = (),
        helps: Seq[str] = (),
        severity: Literal["error", "warning"] = "error",
        fix: str | None = None,
        edits: Seq[Edit] = (),
    ) -> None:
        """Note a fault.

        Args:
            fix: A safe replacement of the place, in short; of a node, the whole of it.
            edits: The same in full.
        """
        span = place if isinstance(place, Span) else place.span
        if fix is not None and not edits and not isinstance(place, Span):
            edits = [self.replacement(place, fix)]
        self.diagnostics.append(
            Diagnostic(
                id=id_,
                headline=headline,
                file=self.document.file,
                source=self.document.text,
                primary=Label(span=span, text=label),
                secondary=tuple(secondary),
                notes=tuple(notes),
                helps=tuple(helps),
                severity=severity,
                fix=fix,
                edits=tuple(edits),
            )
        )

    def expression_faults(self, node: Scalar, faults: Iterable[ExpressionFault]) -> None:
        """Note faults whose places count in a scalar's value."""
        for fault in faults:
            index = self.document.index_in(node, fault.start)
            self.fault(
                fault.id,
                fault.headline,
                self.document.span_at(index, max(1, fault.end - fault.start)),
                fault.label,
                secondary=fault.secondary,
                helps=fault.helps,
            )

    # tables

    def table(self, node: Node, what: str, keys: Keys) -> dict[str, Field]:
        """The entries of a table with fixed keys; unknown ones are faults."""
        found = self.entries(node, what)
        if found.keys() <= keys.names:
            return found
        kept: dict[str, Field] = {}
        for name, field in found.items():
            if name in keys.names:
                kept[name] = field
            elif not name.startswith("x-"):
                self._unknown_key(name, field, what, keys, found)
        return kept

    def _unknown_key(
        self, name: str, field: Field, what: str, keys: Keys, found: Collection[str]
    ) -> None:
        if name in keys.foreign:
            helps, edits = (
                [keys.foreign[name]],
                foreign_edits(self.document, name, field, keys.names, found),
            )
            if edits:
                helps.append("apply with: linkspan workflow lint --fix")
            self.fault(
                "LS1009",
                f"'{name}' is a key of another tool",
                field.key,
                helps=helps,
                edits=edits,
            )
            return
        near = did_you_mean(name, keys.known)
        helps = [f"keys here: {', '.join(keys.known)}"]
        # A key that is there already would only be written twice.
        fix = near if near not in found else None
        if near:
            helps = [f"did you mean '{near}'?"]
            if fix:
                helps[0] += "   (apply with: linkspan workflow lint --fix)"
        self.fault("LS1001", f"unknown key '{name}' in {what}", field.key, helps=helps, fix=fix)

    def names(self, node: Node, what: str) -> dict[str, Field]:
        """The entries of a table whose keys are ids that the user chose."""
        found = self.entries(node, what)
        for name, field in list(found.items()):
            if name.startswith("x-"):
                del found[name]
            elif NAME.fullmatch(name) is None:
                self.fault(
                    "LS1014",
                    f"'{name}' is not a valid name in {what}",
                    field.key,
                    helps=["use letters, digits, '_' and '-', not beginning with a digit or '-'"],
                )
                del found[name]
        return found

    def entries(self, node: Node, what: str) -> dict[str, Field]:
        """The entries of a table, ``<<`` merged in; a key written twice is a fault."""
        if not isinstance(node, Mapping):
            self._wrong_type(node, what, "a mapping")
            return {}
        own: dict[str, Field] = {}
        merged: dict[str, Field] = {}
        for key, value in node.entries:
            if not isinstance(key, Scalar):
                self.fault("LS1010", f"a key in {what} must be a text", key)
            elif key.plain and key.text == "<<":
                merged |= self._merged(value, what)
            elif key.text in own:
                self._duplicate(own[key.text], Field(key=key, value=value), what)
            else:
                own[key.text] = Field(key=key, value=value)
        if not merged:
            return own
        return {**{name: field for name, field in merged.items() if name not in own}, **own}

    def _merged(self, node: Node, what: str) -> dict[str, Field]:
        sources = node.items if isinstance(node, Sequence) else (node,)
        found: dict[str, Field] = {}
        for source in reversed(sources):
            # As in YAML's merge key: the first of several wins.
            found |= self.entries(source, f"the merged mapping of {what}")
        return found

    def _duplicate(self, first: Field, second: Field, what: str) -> None:
        helps: list[str] = []
        raws = [self.raw(field.value) for field in (first, second)]
        if all(
            isinstance(field.value, Mapping) and raw[:1] == "{"
            for field, raw in zip((first, second), raws, strict=True)
        ):
            body = ", ".join(raw[1:-1].strip() for raw in raws if raw[1:-1].strip())
            helps = [f"merge them: {second.key.text}: {{{body}}}"]
        self.fault(
            "LS1002",
            f"key '{second.key.text}' is written twice in {what}; the first value would be lost",
            second.key,
            "second definition",
            secondary=[Label(span=first.key.span, text="first definition")],
            helps=helps or ["keep one of the two"],
        )

    def raw(self, node: Node) -> str:
        """The text of a node as it was written."""
        return self.document.text[node.start : node.end]

    def require(
        self, fields: MappingType[str, Field], name: str, what: str, place: Node, help_: str = ""
    ) -> bool:
        """Whether a key is there; a fault if it is not."""
        if name in fields:
            return True
        helps = [f"add  {help_}"] if help_ else []
        self.fault("LS1008", f"{what} needs the key '{name}'", place.span, helps=helps)
        return False

    def quiet_entries(self, node: Node) -> dict[str, Field]:
        """The entries of a table as written, with nothing noted."""
        if not isinstance(node, Mapping):
            return {}
        found = ((k, v) for k, v in node.entries if isinstance(k, Scalar))
        return {key.text: Field(key=key, value=value) for key, value in found}

    # lists

    def items(self, node: Node, what: str) -> tuple[Node, ...]:
        """The items of a list."""
        if isinstance(node, Sequence):
            return node.items
        self._wrong_type(node, what, "a list")
        return ()

    def one_or_more(self, node: Node) -> tuple[Node, ...]:
        """The items of a list, or the one value that stands in its place."""
        return node.items if isinstance(node, Sequence) else (node,)

    # scalars

    def text(self, node: Node, what: str) -> str | None:
        """A text without expressions."""
        scalar = self._scalar(node, what, "a text")
        if scalar is None:
            return None
        if OPEN in scalar.text:
            self.fault("LS1010", f"{what} cannot hold an expression", node)
            return None
        return scalar.text

    def template(self, node: Node, what: str) -> Template | str | None:
        """A text that may hold expressions."""
        scalar = self._scalar(node, what, "a text")
        if scalar is None:
            return None
        try:
            return parse_template(scalar)
        except TemplateInvalid as invalid:
            self.expression_faults(scalar, invalid.faults)
            return None

    def _scalar(self, node: Node, what: str, wanted: str) -> Scalar | None:
        if isinstance(node, Scalar) and not (node.plain and node.text in _NULLS):
            return node
        self._wrong_type(node, what, wanted)
        return None

    def _wrong_type(self, node: Node, what: str, wanted: str, label: str = "", *helps: str) -> None:
        self.fault(
            "LS1010", f"{what} must be {wanted}, found {describe(node)}", node, label, helps=helps
        )

    def boolean(self, node: Node, what: str) -> bool | None:
        """``true`` or ``false``."""
        if isinstance(node, Scalar) and node.plain and node.text in {"true", "false"}:
            return node.text == "true"
        if not isinstance(node, Scalar):
            self._wrong_type(node, what, "true or false")
            return None
        word = node.text.lower()
        notes = []
        if node.plain and word in _OTHER_BOOLS:
            notes = ["this file is YAML 1.2, where yes/no/on/off are plain text"]
        value = "true" if word in {"yes", "on", "y", "true"} else "false"
        helps = [
            f"write {value}" if word in _OTHER_BOOLS | {"true", "false"} else "write true or false"
        ]
        self.fault(
            "LS1011",
            f"{what} must be true or false, found {describe(node)}",
            node,
            notes=notes,
            helps=helps,
            fix=value,
        )
        return None

    def integer(
        self, node: Node, what: str, *, least: int | None = None, most: int | None = None
    ) -> int | None:
        """A whole number."""
        if not (isinstance(node, Scalar) and node.plain and _INT.fullmatch(node.text)):
            helps: tuple[str, ...] = ()
            if isinstance(node, Scalar) and _INT.fullmatch(node.text):
                helps = (f"drop the quotes: {node.text}",)
            self._wrong_type(node, what, "a whole number", "", *helps)
            return None
        if len(node.text) > 18:
            self.fault("LS1013", f"{what} is too large", node)
            return None
        value = int(node.text)
        if (least is not None and value < least) or (most is not None and value > most):
            allowed = f"at least {least}" if most is None else f"from {least} to {most}"
            self.fault("LS1013", f"{what} must be {allowed}, found {value}", node)
            return None
        return value

    def number(self, node: Node, what: str) -> float | None:
        """A number."""
        if isinstance(node, Scalar) and node.plain and _FLOAT.fullmatch(node.text):
            return float(node.text)
        self._wrong_type(node, what, "a number")
        return None

    def duration(self, node: Node, what: str) -> float | None:
        """Seconds of ``10m``; a bare number is refused."""
        scalar = self._quantity(node, what, "a duration", "write 10s, 10m or 1h30m", parse_duration)
        return None if scalar is None else parse_duration(scalar.text)

    def size(self, node: Node, what: str) -> int | None:
        """Bytes of ``512Mi``; a bare number is refused."""
        scalar = self._quantity(node, what, "a size", "write 512Mi or 2G", parse_size)
        return None if scalar is None else parse_size(scalar.text)

    def _quantity(
        self, node: Node, what: str, wanted: str, examples: str, read: Callable[[str], float]
    ) -> Scalar | None:
        scalar = self._scalar(node, what, wanted)
        if scalar is None:
            return None
        if _FLOAT.fullmatch(scalar.text) and scalar.text != "0":
            if what == "'timeout'" and scalar.plain:
                minutes = scalar.text
                examples += (
                    f".  GitHub's `timeout-minutes: {minutes}` is `timeout: {minutes}m` here"
                )
            self._wrong_type(node, what, wanted, f"{scalar.text} what?", examples)
            return None
        try:
            read(scalar.text)
        except InvalidArgument:
            self._wrong_type(node, what, wanted, "", examples)
            return None
        return scalar

    def choice(self, node: Node, what: str, options: Collection[str]) -> str | None:
        """One of some words."""
        scalar = self._scalar(node, what, "a text")
        if scalar is None or scalar.text in options:
            return None if scalar is None else scalar.text
        near = did_you_mean(scalar.text, options)
        helps = [f"did you mean '{near}'?"] if near else []
        self.fault(
            "LS1013",
            f"{what} must be {one_of(options)}, found '{scalar.text}'",
            node,
            helps=helps,
            fix=near,
        )
        return None

    # expressions

    def condition(self, node: Node) -> Expression | None:
        """The expression of an ``if``, with or without ``${{ }}`` around the whole of it."""
        scalar = self._scalar(node, "'if'", "an expression")
        if scalar is None:
            return None
        try:
            found = list(placeholders(scalar.text))
            if not found:
                body = scalar.text
                start = len(body) - len(body.lstrip())
                return parse_expression(scalar, start, len(body.rstrip()))
            start, source_start, source_end, end = found[0]
            if scalar.text[:start].strip() or scalar.text[end:].strip():
                self._text_around(scalar, found)
                return None
            return parse_expression(scalar, source_start, source_end)
        except TemplateInvalid as invalid:
            self.expression_faults(scalar, invalid.faults)
            return None

    def _text_around(self, node: Scalar, found: Seq[tuple[int, int, int, int]]) -> None:
        text = node.text
        start, _, _, end = found[0]
        after = text[end:]
        if after.strip():
            at, length = end + len(after) - len(after.lstrip()), len(after.strip())
        else:
            at, length = len(text) - len(text.lstrip()), len(text[:start].strip())
        bare = re.sub(r"\$\{\{\s*|\s*\}\}", "", text).strip()
        self.fault(
            "LS1202",
            "text around the expression makes this condition always true",
            self.document.span_at(self.document.index_in(node, at), length),
            "this part is text, not logic",
            helps=[f"`if` is already an expression:  if: {bare}"],
            edits=[self.replacement(node, bare)] if _is_bare(bare) else (),
        )

    def flag(self, node: Node, what: str) -> bool | Expression | None:
        """``true``, ``false``, or an expression."""
        if isinstance(node, Scalar) and node.text.strip().startswith(OPEN):
            template = self.template(node, what)
            if isinstance(template, Template) and template.sole is not None:
                return template.sole
            if template is not None:
                self.fault("LS1202", f"{what} must be the expression alone", node)
            return None
        return self.boolean(node, what)


def _is_bare(expression: str) -> bool:
    """Whether an expression can stand in YAML without quotes, and is one."""
    if re.search(r": |\s#|[\n{}\[\],]", expression) or expression[:1] in "!&*'\"|>%@`":
        return False
    try:
        parse(expression)
    except ExpressionInvalid:
        return False
    return True


def one_of(options: Collection[str]) -> str:
    """``a, b or c``."""
    words = [str(option) for option in options]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def describe(node: Node) -> str:
    """What a node is, in words: ``the number 10``, ``a list``."""
    match node:
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case Scalar():
            pass
    if node.plain and node.text in _NULLS:
        return "nothing"
    if node.plain and _FLOAT.fullmatch(node.text):
        return f"the number {node.text}"
    if node.plain and node.text in {"true", "false"}:
        return node.text
    shown = node.text if len(node.text) <= 40 else f"{node.text[:37]}..."
    return f"the text {shown!r}"


def core_value(node: Scalar) -> str | int | float | bool | None:
    """A scalar typed as YAML 1.2's core schema does, where no schema of ours says more."""
    if not node.plain:
        return node.text
    if node.text in _NULLS:
        return None
    if node.text in {"true", "false"}:
        return node.text == "true"
    if _INT.fullmatch(node.text) and len(node.text) <= 18:
        return int(node.text)
    if _FLOAT.fullmatch(node.text):
        return float(node.text)
    return node.text
