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
_HEREDOC = re.compile(r"(?:^|\s)[0-9]*<<-?[^<\s]")
_HEREDOC_KEYWORDS = ("RUN", "COPY", "ADD")


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
    """

    lines: tuple[Line, ...]
    escape: str = "\\"
    syntax: str = ""
    check: str = ""
    warnings: tuple[str, ...] = ()


def parse_lines(text: str, file: str = "Dockerfile") -> LogicalFile:
    """Cut a Dockerfile into instructions.

    Raises:
        DockerfileError: A line is too long, a directive is wrong, the file is empty or too large,
            or it uses a heredoc (not supported yet).
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
        )

    def _next_instruction(self) -> Line | None:
        """The instruction that starts at the next physical line; None for blanks and comments."""
        first = self._take().lstrip()
        start = self.at
        self._directive(first)
        if first.startswith("#"):
            return None
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
        if not text.strip():
            return None
        return split_line(text, self.file, start, self.at, self.escape)

    def _take(self) -> str:
        """The next physical line without its end."""
        line = self.physical[self.at]
        self.at += 1
        if len(line) > MAX_LINE_BYTES // 4 and len(os_bytes(line)) > MAX_LINE_BYTES:
            raise DockerfileError(
                f"dockerfile line greater than max allowed size of {MAX_LINE_BYTES}",
                file=self.file,
                line=self.at,
            )
        return line.rstrip("\r\n")

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
    """Keyword, flags and rest of one instruction whose continuation lines are joined.

    Raises:
        DockerfileError: It opens a heredoc, which is not supported yet.
    """
    words = _WHITESPACE.split(text.strip(), maxsplit=1)
    flags, rest = _cut_flags(words[1]) if len(words) == 2 else ((), "")
    line = Line(
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
    _refuse_heredoc(line)
    return line


def _refuse_heredoc(line: Line) -> None:
    inner = line
    if line.keyword == "ONBUILD" and line.rest:
        words = _WHITESPACE.split(line.rest, maxsplit=1)
        inner = attrs.evolve(line, keyword=words[0].upper(), rest=words[1] if words[1:] else "")
    if inner.keyword not in _HEREDOC_KEYWORDS or json_words(inner) is not None:
        return
    if _HEREDOC.search(inner.rest):
        raise line.error(
            f"heredocs (<<) are not supported in {inner.keyword} yet",
            help="write the lines into a file of the build context and COPY it",
            code="dockerfile_unsupported",
            diagnostic_id="LS0204",
        )


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


def _flag_word(text: str, at: int) -> tuple[str, int]:
    """One word from ``at`` with quotes removed, and the index behind it.

    The escape is always the backslash here, whatever ``# escape=`` says, as in BuildKit.
    """
    word, quote = "", ""
    while at < len(text):
        char = text[at]
        if quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif not quote and char.isspace():
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
