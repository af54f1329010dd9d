"""Compose files as a document: YAML, variables, several files laid over one another.

What a service becomes is said in ``compose_spec``.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from linkspan.core.cli.failure import USAGE, Failure

_MAX_BYTES: Final = 1 << 20
_MAX_NODES: Final = 50_000
_VARIABLE: Final = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<bare>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)"
    r"(?:(?P<operator>:?[-?+])(?P<rest>(?:[^{}]|\$\{[^{}]*\})*))?\}|(?P<wrong>))"
)
SECTIONS: Final = ("services", "networks", "volumes", "secrets", "configs")
_OTHER: Final = ("version", "name", *SECTIONS)


def wrong(where: str, reason: str, *helps: str) -> Failure:
    """A fault in a Compose file.

    Args:
        where: File and key, ``compose.yaml: services.web.ports``.
        reason: What is wrong with it.
        helps: What to write instead.
    """
    return Failure(f"{where}: {reason}", id="LS0004", status=USAGE, helps=helps)


def load(files: Iterable[str], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Read files, the later over the earlier; variables are filled in.

    Args:
        files: Paths; ``-`` is stdin.
        environ: Values of variables.

    Returns:
        The sections ``services``, ``networks``, ``volumes``, ``secrets`` and ``configs``, each name → mapping.

    Raises:
        Failure: A file cannot be read, or is no Compose file.
    """
    merged: dict[str, Any] = {section: {} for section in SECTIONS}
    for file in files:
        base = Path.cwd() if file == "-" else Path(file).absolute().parent
        document = _parse(file)
        budget = [_MAX_NODES]
        filled = _fill(document, environ, file, budget)
        for key in filled:
            if key not in _OTHER and not str(key).startswith("x-"):
                raise wrong(file, f"unknown key '{key}'", f"known: {', '.join(_OTHER)}, x-…")
        for section in SECTIONS:
            for name, body in _mapping(filled.get(section), f"{file}: {section}").items():
                found = dict(_mapping(body, f"{file}: {section}.{name}"))
                found["x-base"] = str(base)
                old = merged[section].get(str(name), {})
                merged[section][str(name)] = _over(old, found)
    if not merged["services"]:
        raise wrong(" ".join(files), "there is no service in it")
    return merged


def _parse(file: str) -> Any:
    import yaml

    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise Failure(f"cannot read '{file}': {exc.strerror}", id="LS0004", status=USAGE) from exc
    if len(data) > _MAX_BYTES:
        raise wrong(file, "it is larger than 1 MiB")
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        problem = getattr(exc, "problem", None) or "it is not YAML"
        raise wrong(place, str(problem)) from exc
    return _mapping(document, file)


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(where, f"a mapping is expected, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "a truth", int: "a number", float: "a number"}
    return kinds.get(type(value), "nothing" if value is None else "something else")


def _fill(value: Any, environ: Mapping[str, str], where: str, budget: list[int]) -> Any:
    """The value with its variables filled in; a file whose references blow it up is refused."""
    budget[0] -= 1
    if budget[0] < 0:
        raise wrong(where.partition(":")[0], "it has too many entries")
    if isinstance(value, str):
        return interpolate(value, environ, where)
    if isinstance(value, list):
        return [_fill(item, environ, f"{where}[{n}]", budget) for n, item in enumerate(value)]
    if isinstance(value, dict):
        return {
            key: _fill(item, environ, f"{where}{'.' if ':' in where else ': '}{key}", budget)
            for key, item in value.items()
        }
    return value


def interpolate(text: str, environ: Mapping[str, str], where: str) -> str:
    """``$NAME``, ``${NAME}``, ``${NAME:-other}``, ``${NAME:?message}``, ``${NAME:+other}``, ``$$``.

    Raises:
        Failure: A variable is needed and not set, or cannot be read.
    """

    def value_of(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name = match["bare"] or match["name"]
        if not name:
            raise wrong(where, f"'{text}' has a '$' that begins no variable", "write $$ for a '$'")
        operator, rest = match["operator"] or "", match["rest"] or ""
        found = environ.get(name)
        is_there = found is not None and (found != "" or not operator.startswith(":"))
        if operator.endswith("+"):
            return interpolate(rest, environ, where) if is_there else ""
        if is_there:
            return found or ""
        if operator.endswith("?"):
            raise wrong(where, f"the variable {name} is needed: {rest or 'it is not set'}")
        return interpolate(rest, environ, where) if operator else ""

    return _VARIABLE.sub(value_of, text)


_BY_KEY: Final = ("environment", "labels", "extra_hosts", "sysctls")


def _over(old: Any, new: Any, key: str = "") -> Any:
    """A later file over an earlier one: mappings and lists grow, anything else is replaced."""
    if key in _BY_KEY and old and new:
        return {**pairs(old, key), **pairs(new, key)}
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{k: _over(old[k], v, k) if k in old else v for k, v in new.items()}}
    if isinstance(old, list) and isinstance(new, list) and key not in ("command", "entrypoint"):
        return [*old, *(item for item in new if item not in old)]
    return new


def pairs(value: Any, where: str) -> dict[str, str | None]:
    """A mapping, or a list of ``KEY=VALUE``; None for a key without a value.

    Raises:
        Failure: It is neither.
    """
    if value is None:
        return {}
    if isinstance(value, dict):
        return {str(k): None if v is None else text(v, f"{where}.{k}") for k, v in value.items()}
    if not isinstance(value, list):
        raise wrong(where, f"a mapping or a list is expected, not {_kind(value)}")
    found: dict[str, str | None] = {}
    for item in value:
        name, equals, rest = text(item, where).partition("=")
        found[name] = rest if equals else None
    return found


def text(value: Any, where: str) -> str:
    """A scalar as text; truths as YAML writes them.

    Raises:
        Failure: It is a list, a mapping or nothing.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise wrong(where, f"a text is expected, not {_kind(value)}")


def texts(value: Any, where: str) -> list[str]:
    """A list of scalars, or one.

    Raises:
        Failure: It is neither.
    """
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    return [text(item, where) for item in items]


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A mapping; empty for nothing.

    Raises:
        Failure: It is anything else.
    """
    return {str(k): v for k, v in _mapping(value, where).items()}
