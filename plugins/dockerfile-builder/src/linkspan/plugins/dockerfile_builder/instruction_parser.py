"""Makes the instructions of a Dockerfile from its lines; what does not fit is told in Docker's own texts."""

import re
from collections.abc import Callable, Mapping
from typing import Final

from linkspan.plugins.dockerfile_builder.fault import quote, suggestion
from linkspan.plugins.dockerfile_builder.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Pair,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from linkspan.plugins.dockerfile_builder.mount_option import MountError, check_mount
from linkspan.plugins.dockerfile_builder.parser import (
    Line,
    heredoc_mark,
    json_words,
    quoted_words,
    read_trigger,
    split_line,
    split_pair,
    whitespace_words,
)

_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*")
_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)
_DURATION_PART = re.compile(r"([0-9]*\.?[0-9]*)([a-zµμ]*)")
_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_instruction(line: Line) -> Instruction:
    """Make the value of one line.

    Raises:
        DockerfileError: The instruction is unknown, or its words or flags do not fit.
    """
    reader = _READERS.get(line.keyword)
    if reader is None:
        words = [name if line.written_keyword.isupper() else name.lower() for name in _READERS]
        near = suggestion(line.written_keyword, words)
        raise line.error(
            f"unknown instruction: {line.written_keyword}{near}", diagnostic_id="LS0202"
        )
    return reader(line)


def parse_trigger(expression: str, line: Line) -> Instruction:
    """Make the value of an ONBUILD trigger that a base image brought.

    Args:
        expression: The stored text, without ``ONBUILD``.
        line: The FROM that took the image, for errors.
    """
    return parse_instruction(read_trigger(expression, line))


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a Go duration, ``1m30s``.

    Raises:
        ValueError: With Go's text.
    """
    if text in ("0", "+0", "-0"):
        return 0
    sign, unsigned = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    total, at = 0.0, 0
    while at < len(unsigned):
        match = _DURATION_PART.match(unsigned, at)
        if match is None or not match[1] or match[1] == ".":
            break
        if not match[2]:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if match[2] not in _NANOSECONDS:
            raise ValueError(f"time: unknown unit {quote(match[2])} in duration {quote(text)}")
        total += float(match[1]) * _NANOSECONDS[match[2]]
        at = match.end()
    if not unsigned or at < len(unsigned):
        raise ValueError(f"time: invalid duration {quote(text)}")
    return sign * int(total)


class _Flags:
    """The flags of one instruction, checked against what it knows."""

    def __init__(
        self,
        line: Line,
        *,
        texts: tuple[str, ...] = (),
        switches: tuple[str, ...] = (),
        lists: tuple[str, ...] = (),
    ) -> None:
        self._values: dict[str, list[str]] = {}
        for flag in line.flags:
            name, equals, value = flag.removeprefix("--").partition("=")
            if name not in (*texts, *switches, *lists):
                near = suggestion(name, (*texts, *switches, *lists))
                raise line.error(f"unknown flag: --{name}{near}")
            if name in self._values and name not in lists:
                raise line.error(f"duplicate flag specified: --{name}")
            if name in switches and not equals:
                value = "true"
            elif not equals or (name in switches and not value):
                raise line.error(f"missing a value on flag: --{name}")
            if name in switches and value.lower() not in ("true", "false"):
                raise line.error(f"expecting boolean value for flag --{name}, not: {value}")
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        return self._values.get(name, [""])[0]

    def switch(self, name: str) -> bool | None:
        return self._values[name][0].lower() == "true" if name in self._values else None

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))


def _at_least_one(line: Line, words: tuple[object, ...]) -> None:
    if not words:
        raise line.error(f"{line.keyword} requires at least one argument")


def _exactly_one(line: Line) -> str:
    _Flags(line)
    if not line.rest:
        raise line.error(f"{line.keyword} requires exactly one argument")
    return line.rest


def _command(line: Line, text: str | None = None) -> Command:
    text = line.rest if text is None else text
    words = json_words(line, text)
    if words is not None:
        return Command(words=words, shell_form=False)
    return Command(words=(text,) if text else (), shell_form=True)


def _list(line: Line) -> tuple[str, ...]:
    words = json_words(line)
    return whitespace_words(line.rest) if words is None else words


def _pairs(line: Line) -> tuple[Pair, ...]:
    _Flags(line)
    words = quoted_words(line.rest, line.escape)
    _at_least_one(line, words)
    if "=" not in words[0]:
        parts = split_pair(line.rest)
        if len(parts) < 2:
            raise line.error(f"{line.keyword} must have two arguments", framed=False)
        return (Pair(key=parts[0], value=parts[1], legacy=True),)
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise line.error(
                f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value",
                framed=False,
            )
        if not key:
            raise line.error(f"{line.keyword} names can not be blank")
        pairs.append(Pair(key=key, value=value))
    return tuple(pairs)


def _from(line: Line) -> From:
    flags = _Flags(line, texts=("platform",))
    words = whitespace_words(line.rest)
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise line.error("FROM requires either one or three arguments")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        raise line.error(
            f"invalid name for build stage: {quote(words[2])},"
            " name can't start with a number or contain symbols"
        )
    return From(
        line=line,
        base=words[0],
        name=name,
        platform=flags.text("platform"),
        written_as=words[1] if name else "",
        written_name=words[2] if name else "",
    )


def _run(line: Line) -> Run:
    flags = _Flags(line, texts=("network", "security"), lists=("mount", "device"))
    network = flags.text("network") or "default"
    if network not in ("default", "none", "host"):
        raise line.error(f"invalid network mode {quote(network)}")
    security = flags.text("security") or "sandbox"
    if security not in ("sandbox", "insecure"):
        raise line.error(f"security {quote(security)} is not valid")
    if flags.many("device"):
        raise _unsupported(line, "RUN --device")
    if security == "insecure":
        raise _unsupported(line, "RUN --security=insecure")
    mounts = flags.many("mount")
    for text in mounts:
        try:
            check_mount(text)
        except MountError as error:
            raise line.error(str(error)) from error
    return Run(line=line, command=_command(line), network=network, mounts=mounts)


def _unsupported(line: Line, what: str) -> Exception:
    return line.error(
        f"{what} is not supported",
        code="dockerfile_unsupported",
        diagnostic_id="LS0204",
        help="docs/reference/dockerfile.md lists what is supported",
    )


def _cmd(line: Line) -> Cmd:
    _Flags(line)
    return Cmd(line=line, command=_command(line))


def _entrypoint(line: Line) -> Entrypoint:
    _Flags(line)
    return Entrypoint(line=line, command=_command(line))


def _label(line: Line) -> Label:
    return Label(line=line, pairs=_pairs(line))


def _env(line: Line) -> Env:
    return Env(line=line, pairs=_pairs(line))


def _maintainer(line: Line) -> Maintainer:
    return Maintainer(line=line, value=_exactly_one(line))


def _expose(line: Line) -> Expose:
    _Flags(line)
    ports = whitespace_words(line.rest)
    _at_least_one(line, ports)
    return Expose(line=line, ports=tuple(sorted(ports)))


_TRANSFER_TEXTS = ("chown", "chmod")


def _operands(line: Line) -> tuple[tuple[str, ...], str]:
    """Sources without inline documents, and the destination."""
    words = _list(line)
    if len(words) < 2:
        raise line.error(
            f"{line.keyword} requires at least two arguments, but only one was provided."
            " Destination could not be determined"
        )
    if not line.heredocs:
        return words[:-1], words[-1]
    if heredoc_mark(words[-1]) is not None:
        raise line.error(f"{line.keyword} cannot accept a heredoc as a destination")
    return tuple(word for word in words[:-1] if heredoc_mark(word) is None), words[-1]


def _copy(line: Line) -> Copy:
    flags = _Flags(
        line,
        texts=(*_TRANSFER_TEXTS, "from"),
        switches=("link", "parents"),
        lists=("exclude",),
    )
    sources, dest = _operands(line)
    return Copy(
        line=line,
        sources=sources,
        dest=dest,
        inline=line.heredocs,
        source=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        parents=bool(flags.switch("parents")),
        exclude=flags.many("exclude"),
    )


def _add(line: Line) -> Add:
    flags = _Flags(
        line,
        texts=(*_TRANSFER_TEXTS, "checksum"),
        switches=("link", "keep-git-dir", "unpack"),
        lists=("exclude",),
    )
    sources, dest = _operands(line)
    return Add(
        line=line,
        sources=sources,
        dest=dest,
        inline=line.heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        exclude=flags.many("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=bool(flags.switch("keep-git-dir")),
        unpack=flags.switch("unpack"),
    )


def _volume(line: Line) -> Volume:
    _Flags(line)
    paths = tuple(path.strip() for path in _list(line))
    _at_least_one(line, paths)
    if "" in paths:
        raise line.error("VOLUME specified can not be an empty string")
    return Volume(line=line, paths=paths)


def _user(line: Line) -> User:
    return User(line=line, value=_exactly_one(line))


def _workdir(line: Line) -> Workdir:
    return Workdir(line=line, path=_exactly_one(line))


def _stop_signal(line: Line) -> StopSignal:
    return StopSignal(line=line, value=_exactly_one(line))


def _arg(line: Line) -> Arg:
    _Flags(line)
    words = quoted_words(line.rest, line.escape)
    _at_least_one(line, words)
    args: list[tuple[str, str | None]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not key:
            raise line.error("ARG names can not be blank")
        args.append((key, value if equals else None))
    return Arg(line=line, args=tuple(args))


def _onbuild(line: Line) -> Onbuild:
    _Flags(line)
    if not line.rest:
        raise line.error("ONBUILD requires at least one argument")
    trigger = split_line(line.rest, line.file, line.first_line, line.last_line, line.escape)
    if trigger.keyword == "ONBUILD":
        raise line.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger.keyword in ("FROM", "MAINTAINER"):
        raise line.error(f"{trigger.keyword} isn't allowed as an ONBUILD trigger")
    return Onbuild(line=line, expression=_ONBUILD.sub("", line.whole_text, count=1))


def _shell(line: Line) -> Shell:
    _Flags(line)
    words = json_words(line)
    if words is None:
        raise line.error("SHELL requires the arguments to be in JSON form")
    _at_least_one(line, words)
    return Shell(line=line, shell=words)


_INTERVALS = ("interval", "timeout", "start-period", "start-interval")


def _healthcheck(line: Line) -> Healthcheck:
    flags = _Flags(line, texts=(*_INTERVALS, "retries"))
    kind, *following = split_pair(line.rest) if line.rest else ("",)
    rest = following[0] if following else ""
    if not kind:
        raise line.error("HEALTHCHECK requires at least one argument")
    if kind.upper() == "NONE":
        if rest:
            raise line.error("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(line=line, test=("NONE",))
    if kind.upper() != "CMD":
        raise line.error(f"Unknown type {quote(kind.upper())} in HEALTHCHECK (try CMD)")
    command = _command(line, rest)
    if not command.words:
        raise line.error("Missing command after HEALTHCHECK CMD")
    interval, timeout, start_period, start_interval = (
        _interval(line, name, flags.text(name)) for name in _INTERVALS
    )
    return Healthcheck(
        line=line,
        test=("CMD-SHELL" if command.shell_form else "CMD", *command.words),
        interval_ns=interval,
        timeout_ns=timeout,
        start_period_ns=start_period,
        start_interval_ns=start_interval,
        retries=_retries(line, flags.text("retries")),
    )


def _interval(line: Line, name: str, text: str) -> int:
    if not text:
        return 0
    try:
        value = parse_duration_ns(text)
    except ValueError as error:
        raise line.error(str(error)) from error
    if value != 0 and value < _NANOSECONDS["ms"]:
        raise line.error(f"Interval {quote(name)} cannot be less than 1ms")
    return value


def _retries(line: Line, text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text, re.ASCII):
        raise line.error(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    if int(text) < 0:
        raise line.error(f"--retries cannot be negative ({int(text)})")
    return int(text)


_READERS: Final[Mapping[str, Callable[[Line], Instruction]]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
