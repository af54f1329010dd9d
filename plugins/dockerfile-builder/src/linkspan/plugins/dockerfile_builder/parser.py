"""Line level of a Dockerfile: directives, comments, continuations, keyword, flags, rest.

Nothing here knows what an instruction means. The rules and their order are those of BuildKit's
``frontend/dockerfile/parser`` (documented in docs/reference/dockerfile.md, "How a file is read").
"""

import json
import re

import attrs

from linkspan.plugins.dockerfile_builder.fault import DockerfileError

# Docker's parser takes lines of up to 64 KiB - 1; the whole file's limit is our own.
MAX_LINE_BYTES = 65535
MAX_FILE_BYTES = 4 << 20

_WHITESPACE = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"[0-9]*<<(-?)([^<]+)")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_HEREDOC_KEYWORDS = ("RUN", "COPY", "ADD")


@attrs.frozen(kw_only=True)
class Heredoc:
    """An inline document: ``<<name``, its lines, and the line ``name``.

    Attributes:
        data: As written; ``<<-`` leaves its tabs in here, see :attr:`text`.
        expand: Variables mean something in it; not if a part of the name is quoted.
        chomp: Written with ``<<-``.
    """

    name: str
    data: str
    expand: bool
    chomp: bool

    @property
    def text(self) -> str:
        """The document without the leading tabs that ``<<-`` drops."""
        return _LEADING_TABS.sub("", self.data) if self.chomp else self.data


@attrs.frozen(kw_only=True)
class Line:
    """One instruction as written, before anything is expanded.

    Attributes:
        file: The Dockerfile's name, for errors.
        keyword: First word in upper case.
        written_keyword: First word as written.
        flags: Leading words that start with ``--``, quotes removed.
        rest: What follows the flags, trimmed.
        text: The whole instruction, continuation lines joined.
        first_line: From 1.
        last_line: From 1, inclusive.
        escape: The escape token in force, backslash or backtick.
        heredocs: The documents that stand below it, in the order of their marks.
        comment: The comment right above it, without its ``#``; empty if there is none.
    """

    file: str
    keyword: str
    written_keyword: str
    flags: tuple[str, ...]
    rest: str
    text: str
    first_line: int
    last_line: int
    escape: str
    heredocs: tuple[Heredoc, ...] = ()
    comment: str = ""

    @property
    def whole_text(self) -> str:
        """The instruction with its inline documents."""
        below = (f"\n{document.data}{document.name}" for document in self.heredocs)
        return self.text + "".join(below)

    def error(self, text: str, *, framed: bool = True, **extra: str) -> DockerfileError:
        """An error at this instruction; ``framed`` puts Docker's own frame around the text."""
        if framed:
            text = f"dockerfile parse error on line {self.first_line}: {text}"
        return DockerfileError(text, file=self.file, line=self.first_line, **extra)


@attrs.frozen(kw_only=True)
class LogicalFile:
    """A Dockerfile cut into instructions.

    Attributes:
        syntax: Value of ``# syntax=``; empty if there is none.
        check: Value of ``# check=``; empty if there is none.
        warnings: Sentences for the author; nothing stops for them.
        empty_continuations: Last lines of the instructions that have an empty line in them.
    """

    lines: tuple[Line, ...]
    escape: str = "\\"
    syntax: str = ""
    check: str = ""
    warnings: tuple[str, ...] = ()
    empty_continuations: tuple[int, ...] = ()


def parse_lines(text: str, file: str = "Dockerfile") -> LogicalFile:
    """Cut a Dockerfile into instructions.

    Raises:
        DockerfileError: A line is too long, a directive is wrong, the file is empty or too large,
            or an inline document has no end.
    """
    if len(text) > MAX_FILE_BYTES:
        raise DockerfileError(f"the Dockerfile is larger than {MAX_FILE_BYTES} bytes", file=file)
    return _Reader(text.removeprefix("\ufeff"), file).read()


class _Reader:
    """One pass over the physical lines."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.physical = text.split("\n")
        if self.physical[-1] == "":
            self.physical.pop()
        self.at = 0
        self.directives: dict[str, str] = {}
        self.in_directives = True
        self.warnings: list[str] = []
        self.empty_continuations: list[int] = []
        self.comment = ""
        self._set_escape("\\")

    def _set_escape(self, token: str) -> None:
        self.escape = token
        quoted = re.escape(token)
        self.continuation = re.compile(rf"([^{quoted}]){quoted}[ \t]*$|^{quoted}[ \t]*$")

    def read(self) -> LogicalFile:
        lines: list[Line] = []
        while self.at < len(self.physical):
            line = self._next_instruction()
            if line is not None:
                lines.append(line)
        if not lines:
            raise DockerfileError("file with no instructions", file=self.file)
        if self.warnings:
            self.warnings.append("Empty continuation lines will become errors in a future release.")
        return LogicalFile(
            lines=tuple(lines),
            escape=self.escape,
            syntax=self.directives.get("syntax", ""),
            check=self.directives.get("check", ""),
            warnings=tuple(self.warnings),
            empty_continuations=tuple(self.empty_continuations),
        )

    def _next_instruction(self) -> Line | None:
        """The instruction that starts at the next physical line; None for blanks and comments."""
        first = self._take().lstrip()
        start = self.at
        self._directive(first)
        if first.startswith("#"):
            self.comment = first.removeprefix("#").strip()
            return None
        comment, self.comment = self.comment, ""
        text, open_ended = self._cut(first)
        if not open_ended and not text:
            return None
        empty_line = False
        while open_ended and self.at < len(self.physical):
            following = self._take()
            if following.lstrip().startswith("#"):
                continue
            if not following.strip():
                empty_line = True
                continue
            more, open_ended = self._cut(following)
            text += more
        if empty_line:
            self.warnings.append(f"Empty continuation line found in: {text.strip()}")
            self.empty_continuations.append(self.at)
        if not text.strip():
            return None
        line = split_line(text, self.file, start, self.at, self.escape)
        line = attrs.evolve(line, comment=comment)
        heredocs = tuple(self._document(line, *mark) for mark in _heredoc_marks(line))
        if not heredocs:
            return line
        return attrs.evolve(line, heredocs=heredocs, last_line=self.at)

    def _document(self, line: Line, name: str, expand: bool, chomp: bool) -> Heredoc:
        """The lines up to the one that is ``name``."""
        lines: list[str] = []
        while self.at < len(self.physical):
            raw = self._take_raw()
            ending = raw.rstrip("\r")
            if (ending.lstrip("\t") if chomp else ending) == name:
                return Heredoc(name=name, data="".join(lines), expand=expand, chomp=chomp)
            lines.append(f"{raw}\n")
        raise line.error("unterminated heredoc", framed=False)

    def _take(self) -> str:
        """The next physical line without its end."""
        return self._take_raw().rstrip("\r\n")

    def _take_raw(self) -> str:
        line = self.physical[self.at]
        self.at += 1
        if len(line) > MAX_LINE_BYTES // 4 and len(os_bytes(line)) > MAX_LINE_BYTES:
            raise DockerfileError(
                f"dockerfile line greater than max allowed size of {MAX_LINE_BYTES}",
                file=self.file,
                line=self.at,
            )
        return line

    def _cut(self, line: str) -> tuple[str, bool]:
        """The line without its continuation mark, and whether it had one."""
        cut, count = self.continuation.subn(lambda m: m[1] or "", line)
        return cut, count > 0

    def _directive(self, line: str) -> None:
        if not self.in_directives:
            return
        if self.at == 1 and line.startswith("#!"):
            return
        match = _DIRECTIVE.match(line)
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            self.in_directives = False
            return
        if name in self.directives:
            raise DockerfileError(
                f"only one {name} parser directive can be used", file=self.file, line=self.at
            )
        self.directives[name] = match[2]
        if name == "escape":
            if match[2] not in ("\\", "`"):
                raise DockerfileError(
                    f"invalid escape token '{match[2]}' does not match ` or \\",
                    file=self.file,
                    line=self.at,
                )
            self._set_escape(match[2])


def os_bytes(text: str) -> bytes:
    """UTF-8 with surrogates kept, as the text was decoded."""
    return text.encode("utf-8", "surrogateescape")


def split_line(text: str, file: str, first: int, last: int, escape: str) -> Line:
    """Keyword, flags and rest of one instruction whose continuation lines are joined."""
    words = _WHITESPACE.split(text.strip(), maxsplit=1)
    flags, rest = _cut_flags(words[1]) if len(words) == 2 else ((), "")
    return Line(
        file=file,
        keyword=words[0].upper(),
        written_keyword=words[0],
        flags=flags,
        rest=rest.strip(),
        text=text.strip(),
        first_line=first,
        last_line=last,
        escape=escape,
    )


def read_trigger(text: str, line: Line) -> Line:
    """One instruction with its inline documents, as ONBUILD keeps it in an image's config.

    Args:
        line: The FROM that took the image, for errors.

    Raises:
        DockerfileError: An inline document has no end.
    """
    head, newline, below = text.partition("\n")
    trigger = split_line(head, line.file, line.first_line, line.last_line, "\\")
    reader = _Reader(below if newline else "", line.file)
    heredocs = tuple(reader._document(line, *mark) for mark in _heredoc_marks(trigger))
    return attrs.evolve(trigger, heredocs=heredocs)


def _heredoc_marks(line: Line) -> list[tuple[str, bool, bool]]:
    """Name, whether to expand, whether to chomp, of each ``<<name`` of an instruction."""
    if line.keyword == "ONBUILD" and line.rest:
        return _heredoc_marks(
            split_line(line.rest, line.file, line.first_line, line.last_line, line.escape)
        )
    if line.keyword not in _HEREDOC_KEYWORDS or "<<" not in line.rest:
        return []
    if json_words(line) is not None:
        return []
    words = quoted_words(line.rest, line.escape)
    return [mark for mark in map(heredoc_mark, words) if mark is not None]


def heredoc_mark(word: str) -> tuple[str, bool, bool] | None:
    """What a word like ``<<-'END'`` opens: name, whether to expand, whether to chomp."""
    match = _HEREDOC.fullmatch(word)
    if match is None:
        return None
    name, _ = _flag_word(match[2], 0, whole=True)
    return (name, name == match[2], bool(match[1])) if name else None


def _cut_flags(text: str) -> tuple[tuple[str, ...], str]:
    """Leading ``--flag`` words (quotes and escapes removed) and what follows them."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        word, at = _flag_word(text, at)
        if word == "--":
            return tuple(flags), text[at:]
        flags.append(word)


def _flag_word(text: str, at: int, *, whole: bool = False) -> tuple[str, int]:
    """One word from ``at`` with quotes removed, and the index behind it; ``whole``: up to the end.

    The escape is always the backslash here, whatever ``# escape=`` says, as in BuildKit.
    """
    word, quote = "", ""
    while at < len(text):
        char = text[at]
        if quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif not quote and char.isspace() and not whole:
            break
        elif char == "\\":
            at += 1
            word += text[at : at + 1]
        else:
            word += char
        at += 1
    return word, at


def whitespace_words(text: str) -> tuple[str, ...]:
    """Words between blanks; quotes mean nothing."""
    return tuple(word for word in _WHITESPACE.split(text.strip()) if word)


def quoted_words(text: str, escape: str) -> tuple[str, ...]:
    """Words between blanks, where quotes and the escape token hold blanks together.

    Quotes and escapes stay in the words; expansion removes them.
    """
    words: list[str] = []
    word, quote, started = "", "", False
    at = 0
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            if started:
                words.append(word)
            word, started = "", False
        elif char == escape and quote != "'":
            # A trailing escape token vanishes.
            if at + 1 < len(text):
                word, started = word + char + text[at + 1], True
            at += 1
        else:
            started = True
            word += char
            if char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
        at += 1
    if started:
        words.append(word)
    return tuple(words)


def split_pair(text: str) -> tuple[str, ...]:
    """First word and the rest, for the legacy ``KEY value`` form."""
    return tuple(_WHITESPACE.split(text, maxsplit=1))


def json_words(line: Line, text: str | None = None) -> tuple[str, ...] | None:
    """The strings of a JSON array; None when the text is shell form.

    Broken JSON is shell form without a word, as everywhere in Docker.

    Raises:
        DockerfileError: It is a JSON array of something else than strings.
    """
    text = (line.rest if text is None else text).lstrip()
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in value):
        raise line.error(
            "when using JSON array syntax, arrays must be comprised of strings only", framed=False
        )
    return tuple(value)


def _no_constant(name: str) -> object:
    # Python reads NaN and Infinity, which are not JSON.
    raise ValueError(name)
