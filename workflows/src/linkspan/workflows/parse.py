"""Pipeline text to a tree of nodes with positions, and every fault of the text itself.

The tree is built from PyYAML's events, not by ``yaml.load``: scalars keep their raw text (``on``,
``3.10`` and ``yes`` stay what was written) and are typed later by our own schema. Building from
events also bounds depth, size and alias expansion before anything is walked.
"""

import bisect
import re
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import attrs
import yaml

from linkspan.sdk.diagnostics import Diagnostic, Edit, Label, Span, did_you_mean
from linkspan.sdk.units import counted

MAX_BYTES: Final = 1024 * 1024
"""GitHub and GitLab both stop at 1 MiB a file; 10,000 lines of a pipeline are about 400 kB."""
MAX_DEPTH: Final = 100
MAX_ALIAS_NODES: Final = 10_000
"""Nodes that aliases may add to the tree when they are expanded."""

MAX_DRAWN: Final = 500
"""Columns; a fault further right is named by its place alone."""

_Yaml: TypeAlias = Any
"""PyYAML's own objects: events, marks, loaders, errors."""

_FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAB_INDENT = re.compile(r"^ *\t", re.MULTILINE)


@attrs.define(eq=False)
class _Placed:
    """Where a node stands.

    Nodes are never changed. They do not forbid it, and make their spans only when asked: a file of 10,000
    lines has 50,000 of them, and most are read once.

    Attributes:
        start: Index of its first character in the file, quotes included.
        end: Index after its last character.
        line, column: Of its first character, from 0.
        length: Characters of its first line.
    """

    start: int
    end: int
    line: int
    column: int
    length: int

    @property
    def span(self) -> Span:
        """Its first line."""
        return Span(line=self.line + 1, column=self.column + 1, length=self.length)


@attrs.define(eq=False)
class Scalar(_Placed):
    """A text as written.

    Attributes:
        text: The value with quotes and escapes resolved.
        plain: Not quoted and not a block; only plain scalars can be numbers or booleans.
    """

    text: str
    plain: bool


@attrs.define(eq=False)
class Sequence(_Placed):
    """A list; ``tag`` is one that the caller of ``parse`` lets through, else empty."""

    items: "tuple[Node, ...]"
    tag: str = ""


@attrs.define(eq=False)
class Mapping(_Placed):
    """A table in the order written; keys may be repeated, and ``<<`` is still an entry."""

    entries: "tuple[tuple[Node, Node], ...]"


Node = Scalar | Sequence | Mapping


@attrs.define(kw_only=True, eq=False)
class Field:
    """One entry of a table; it is never changed."""

    key: Scalar
    value: Node


@attrs.frozen(kw_only=True, eq=False)
class Document:
    """A parsed file.

    Attributes:
        file: The path as the user wrote it.
        text: The whole text, without a byte order mark.
        root: None if the file holds nothing but comments.
    """

    file: str
    text: str = attrs.field(repr=False)
    root: Node | None
    _starts: list[int] = attrs.field(factory=list, init=False, repr=False)

    def _line_starts(self) -> list[int]:
        """Index of the first character of each line; counted once."""
        if not self._starts:
            self._starts.append(0)
            at = self.text.find("\n")
            while at >= 0:
                self._starts.append(at + 1)
                at = self.text.find("\n", at + 1)
        return self._starts

    def span_at(self, index: int, length: int) -> Span:
        """The span that starts at a character index; it ends with its line."""
        starts = self._line_starts()
        line = bisect.bisect_right(starts, index)
        line_start = starts[line - 1]
        line_end = self.text.find("\n", index)
        room = (len(self.text) if line_end < 0 else line_end) - index
        return Span(
            line=line,
            column=index - line_start + 1,
            length=max(1, min(length, room)),
        )

    def index_at(self, span: Span) -> int:
        """The character index at which a span of this document begins."""
        return self._line_starts()[span.line - 1] + span.column - 1

    def index_in(self, scalar: Scalar, offset: int) -> int:
        """Where the character ``offset`` of a scalar's value stands in the file.

        Exact for one-line scalars. Folded and escaped text is aligned character by character,
        which is exact again at the next character that is neither blank nor escaped.
        """
        raw = self.text[scalar.start : scalar.end]
        if raw == scalar.text:
            return scalar.start + offset
        at = 0
        if raw[:1] in {"'", '"'}:
            at = 1
        elif raw[:1] in {"|", ">"}:
            at = raw.find("\n") + 1
        for char in scalar.text[:offset]:
            at = _step(raw, at, char)
        if offset < len(scalar.text):
            at = _align(raw, at, scalar.text[offset])
        return scalar.start + min(at, len(raw))


def _align(raw: str, at: int, char: str) -> int:
    """The index at or after ``at`` where ``char`` stands; ``at`` itself where it is not near."""
    if char.isspace():
        return at
    # Far enough for an indent of 100 levels, near enough not to run away after an escape.
    found = raw.find(char, at, at + 220)
    return at if found < 0 else found


def _step(raw: str, at: int, char: str) -> int:
    if char.isspace():
        return at + 1 if raw[at : at + 1].isspace() else at
    return _align(raw, at, char) + 1


class ParseFailed(Exception):
    """The text cannot be read as YAML; nothing further can be said about it."""

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        super().__init__(diagnostics[0].headline)
        self.diagnostics = diagnostics


def decode(data: bytes, file: str) -> str:
    """The text of a file.

    Raises:
        ParseFailed: LS1007, too large or not UTF-8.
    """
    if len(data) > MAX_BYTES:
        raise ParseFailed(
            [
                Diagnostic(
                    id="LS1007",
                    file=file,
                    headline=f"the file has {len(data)} bytes; a pipeline may have {MAX_BYTES}",
                    helps=("keep data in files of their own and read them in a step",),
                )
            ]
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        good = data[: fault.start].decode("utf-8-sig", "replace")
        line = good.count("\n") + 1
        column = len(good) - (good.rfind("\n") + 1) + 1
        raise ParseFailed(
            [
                Diagnostic(
                    id="LS1007",
                    file=file,
                    headline=f"the file is not UTF-8 text: byte 0x{data[fault.start]:02x} "
                    f"at offset {fault.start}",
                    primary=Label(span=Span(line=line, column=column)),
                    helps=("save it as UTF-8",),
                )
            ]
        ) from fault
    return text


def parse(text: str, file: str, *, list_tag: str = "") -> Document:
    """Read one YAML document.

    Args:
        text: The whole file.
        file: Its path, for messages.
        list_tag: A tag that lists may have, ``!reference``; all others are refused.

    Raises:
        ParseFailed: The text is not YAML (LS1003, LS1004, LS1006), goes beyond a limit (LS1007) or
            names an anchor that is not there (LS1005).
    """
    if len(text) > MAX_BYTES:
        return parse(decode(text.encode(), file), file, list_tag=list_tag)
    try:
        return _Builder(text, file, list_tag).build(_FAST_LOADER)
    except yaml.YAMLError as fast:
        # The Python scanner's marks are better than libyaml's: it is asked only for the message.
        try:
            _Builder(text, file, list_tag).build(yaml.SafeLoader)
        except yaml.YAMLError as slow:
            raise ParseFailed([_syntax_fault(text, file, slow)]) from slow
        raise ParseFailed([_syntax_fault(text, file, fast)]) from fast


class _Frame:
    """A collection whose end has not been read.

    Attributes:
        inner: What its items weigh more than one each.
    """

    __slots__ = ("event", "inner", "items")

    def __init__(self, event: _Yaml) -> None:
        self.event = event
        self.items: list[Node] = []
        self.inner = 0


class _Builder:
    def __init__(self, text: str, file: str, list_tag: str = "") -> None:
        self.text = text
        self.file = file
        self.list_tag = list_tag
        self.anchors: dict[str, tuple[Node, int, Span]] = {}
        self.stack: list[_Frame] = []
        self.root: Node | None = None
        self.alias_nodes = 0
        self.documents = 0

    def build(self, loader: _Yaml) -> Document:
        # As `yaml.parse`, without looking at each event twice.
        parser = loader(self.text)
        take, stack, next_event = self._take, self.stack, parser.get_event
        scalar = yaml.ScalarEvent
        try:
            while (event := next_event()) is not None:
                if type(event) is scalar and event.anchor is None and event.tag is None and stack:
                    # Nearly all there is: a file of 10,000 lines has 30,000 of them.
                    stack[-1].items.append(self._scalar(event))
                else:
                    take(event)
        finally:
            parser.dispose()
        return Document(file=self.file, text=self.text, root=self.root)

    def _take(self, event: _Yaml) -> None:
        kind = type(event)
        if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close(event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            if event.tag is not None:
                self._refuse_tag(event)
            if len(self.stack) >= MAX_DEPTH:
                self._fail("LS1007", f"nested more than {MAX_DEPTH} levels deep", event)
            self.stack.append(_Frame(event))
        elif kind is yaml.ScalarEvent:
            if event.tag is not None:
                self._refuse_tag(event)
            self._add(self._scalar(event), 1, event.anchor)
        elif kind is yaml.AliasEvent:
            self._add(*self._alias(event), None)
        elif kind is yaml.DocumentStartEvent:
            self.documents += 1
            if self.documents > 1:
                self._fail("LS1006", "a pipeline file holds one document; this is a second", event)

    def _scalar(self, event: _Yaml) -> Scalar:
        begin, end = event.start_mark, event.end_mark
        start, stop, line = begin.index, end.index, begin.line
        length = (stop - start or 1) if line == end.line else self._length(start, stop)
        # libyaml says '' for plain scalars, the Python scanner None.
        return Scalar(start, stop, line, begin.column, length, event.value, not event.style)

    def _length(self, start: int, stop: int) -> int:
        """Of the first line of what stands there, without blanks at its end; at least 1."""
        line_end = self.text.find("\n", start, stop)
        return len(self.text[start : stop if line_end < 0 else line_end].rstrip()) or 1

    def _close(self, event: _Yaml) -> None:
        frame = self.stack.pop()
        begin, end, items = frame.event.start_mark, event.end_mark, frame.items
        start, line = begin.index, begin.line
        stop = max(end.index, start)
        length = self._length(start, stop)
        node: Node
        if type(frame.event) is yaml.SequenceStartEvent:
            tag = frame.event.tag or ""
            node = Sequence(start, stop, line, begin.column, length, tuple(items), tag)
        else:
            pairs = tuple(zip(items[::2], items[1::2], strict=True))
            node = Mapping(start, stop, line, begin.column, length, pairs)
        self._add(node, 1 + len(items) + frame.inner, frame.event.anchor)

    def _add(self, node: Node, weight: int, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = (node, weight, self._anchor_span(anchor, node))
        if self.stack:
            frame = self.stack[-1]
            frame.items.append(node)
            frame.inner += weight - 1
        elif self.root is None:
            self.root = node

    def _alias(self, event: _Yaml) -> tuple[Node, int]:
        name = event.anchor
        if any(frame.event.anchor == name for frame in self.stack):
            self._fail("LS1005", f"alias '*{name}' stands inside the very thing it names", event)
        if name not in self.anchors:
            self._unknown_alias(name, event)
        node, weight, _ = self.anchors[name]
        self.alias_nodes += weight
        if self.alias_nodes > MAX_ALIAS_NODES:
            self._fail("LS1007", f"aliases expand to more than {MAX_ALIAS_NODES} values", event)
        return node, weight

    def _unknown_alias(self, name: str, event: _Yaml) -> None:
        near = did_you_mean(name, self.anchors)
        secondary: tuple[Label, ...] = ()
        helps: tuple[str, ...] = ("an anchor must stand before its alias: write &name at it",)
        if near is not None:
            remark = "" if near.replace("_", "-") != name.replace("_", "-") else " (underscore)"
            if remark and "_" in name:
                remark = " (hyphen)"
            secondary = (
                Label(span=self.anchors[near][2], text="a similar anchor is defined here"),
            )
            helps = (f"did you mean '*{near}'?{remark}",)
        raise ParseFailed(
            [
                Diagnostic(
                    id="LS1005",
                    file=self.file,
                    source=self.text,
                    headline=f"unknown alias '*{name}'",
                    primary=Label(span=self._span(event)),
                    secondary=secondary,
                    helps=helps,
                )
            ]
        )

    def _anchor_span(self, anchor: str, node: Node) -> Span:
        """The ``&name`` itself; events carry no mark of it, so it is looked for before the node."""
        at = self.text.rfind(f"&{anchor}", 0, node.end)
        if at < 0:
            return node.span
        return Document(file=self.file, text=self.text, root=None).span_at(at, len(anchor) + 1)

    def _refuse_tag(self, event: _Yaml) -> None:
        if event.tag == self.list_tag and isinstance(event, yaml.SequenceStartEvent):
            return
        self._fail(
            "LS1006",
            f"the tag '{event.tag}' is not allowed; types come from the key, not from tags",
            event,
        )

    def _span(self, event: _Yaml) -> Span:
        mark = event.start_mark
        length = self._length(mark.index, event.end_mark.index)
        return Span(line=mark.line + 1, column=mark.column + 1, length=length)

    def _fail(self, id_: str, headline: str, event: _Yaml) -> None:
        raise ParseFailed(
            [
                Diagnostic(
                    id=id_,
                    file=self.file,
                    # A line of thousands of brackets explains nothing.
                    source=self.text if event.start_mark.column < MAX_DRAWN else "",
                    headline=headline,
                    primary=Label(span=self._span(event)),
                )
            ]
        )


def _syntax_fault(text: str, file: str, fault: yaml.YAMLError) -> Diagnostic:
    """PyYAML's words in ours: what is wrong, where, and what to write instead."""
    if isinstance(fault, yaml.reader.ReaderError):
        document = Document(file=file, text=text, root=None)
        return Diagnostic(
            id="LS1007",
            file=file,
            headline=f"the character {_code_point(fault)} is not allowed in YAML",
            primary=Label(span=document.span_at(min(fault.position, len(text)), 1)),
        )
    assert isinstance(fault, yaml.MarkedYAMLError)
    mark = fault.problem_mark or fault.context_mark
    if mark is None:  # pragma: no cover - PyYAML always marks the problem
        return Diagnostic(id="LS1006", file=file, headline=str(fault))
    tabs = _tab_fault(text, file, mark.line, str(fault.problem))
    if tabs is not None:
        return tabs
    if "mapping values are not allowed" in str(fault.problem):
        return _nested_mapping_fault(text, file, mark)
    secondary: tuple[Label, ...] = ()
    context = fault.context_mark
    if context is not None and (context.line, context.column) != (mark.line, mark.column):
        remark = str(fault.context or "").removeprefix("while ")
        span = Span(line=context.line + 1, column=context.column + 1)
        secondary = (Label(span=span, text=remark),)
    return Diagnostic(
        id="LS1006",
        file=file,
        source=text,
        headline=f"this is not YAML: {fault.problem}",
        primary=Label(span=Span(line=mark.line + 1, column=mark.column + 1)),
        secondary=secondary,
        helps=_bracket_help(str(fault.problem)),
    )


def _bracket_help(problem: str) -> tuple[str, ...]:
    if "',' or ']'" in problem:
        return ("close the list with ']'",)
    if "',' or '}'" in problem:
        return ("close the mapping with '}'",)
    return ()


def _code_point(fault: _Yaml) -> str:
    char = fault.character
    return f"U+{ord(char):04X}" if isinstance(char, str) else f"0x{char:02x}"


def _tab_fault(text: str, file: str, line: int, problem: str) -> Diagnostic | None:
    """LS1003 when the scanner tripped over a tab at or before this line."""
    tabs = [match.start() for match in _TAB_INDENT.finditer(text)]
    if not tabs or ("'\\t'" not in problem and "tab" not in problem):
        lines = {text.count("\n", 0, at) for at in tabs}
        if not lines & {line, line - 1}:
            return None
    first = next((at for at in tabs if text.count("\n", 0, at) >= line - 1), None)
    if first is None:
        return None
    document = Document(file=file, text=text, root=None)
    at = text.index("\t", first)
    count = len(tabs)
    lines_word = counted(count, "line")
    return Diagnostic(
        id="LS1003",
        file=file,
        source=text,
        headline="a tab is used for indentation",
        primary=Label(span=document.span_at(at, 1), text="tab here"),
        helps=(
            f"YAML allows only spaces; {lines_word} affected, "
            "`linkspan workflow lint --fix` turns each into 4 spaces",
        ),
        fix="    ",
        edits=tuple(_tab_edits(text)),
    )


def _tab_edits(text: str) -> Iterator[Edit]:
    for match in _TAB_INDENT.finditer(text):
        end = match.end()
        while text[end : end + 1] in ("\t", " "):
            end += 1
        start = match.start()
        yield Edit(start=start, end=end, text=text[start:end].replace("\t", "    "))


def _nested_mapping_fault(text: str, file: str, mark: _Yaml) -> Diagnostic:
    line = text.split("\n")[mark.line].rstrip("\r")
    head = re.match(r"^\s*(?:- )*([\w.-]+):\s+", line)
    helps: tuple[str, ...] = ("quote the value",)
    edits: tuple[Edit, ...] = ()
    if head is not None and head.end() <= mark.column:
        key, value = head[1], line[head.end() :]
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        helps = (f'quote it:        {key}: "{quoted}"', f"or use a block:  {key}: |")
        if " #" not in value and value[:1] not in "'\"[{|>&*":
            start = mark.index - mark.column + head.end()
            edits = (
                Edit(start=start, end=start + len(value.rstrip()), text=f'"{quoted.rstrip()}"'),
            )
    return Diagnostic(
        id="LS1004",
        file=file,
        source=text,
        headline="this line reads as a mapping because of the second ': '",
        primary=Label(
            span=Span(line=mark.line + 1, column=mark.column + 1, length=2),
            text="YAML starts a nested mapping here",
        ),
        helps=helps,
        edits=edits,
    )


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, aliases expanded."""
    yield node
    match node:
        case Sequence():
            for item in node.items:
                yield from walk(item)
        case Mapping():
            for key, value in node.entries:
                yield from walk(key)
                yield from walk(value)
        case Scalar():
            pass
