"""``--format '{{.Names}}'``: the part of Go's text/template that people use with Docker.

Fields (``.State.Status``), ``json``, ``upper``, ``lower``, ``len``, ``join``, ``index``, ``println``,
pipes, ``range``, ``if``/``else``, and trimming (``{{-``, ``-}}``).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_ACTION: Final = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_WORD: Final = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|[^\s|()]+|[|()]')

Node = Any


class TemplateError(ValueError):
    """The template cannot be read, or does not fit the data."""


class Template:
    """A compiled template."""

    def __init__(self, text: str) -> None:
        """Compile.

        Raises:
            TemplateError: It cannot be read.
        """
        self._tokens = _tokenize(text)
        self._at = 0
        self._nodes, end = self._block()
        if end:
            raise TemplateError(f"'{{{{{end}}}}}' without a beginning")

    def render(self, data: object) -> str:
        """Fill the template.

        Raises:
            TemplateError: A function got what it cannot take.
        """
        out: list[str] = []
        _render(self._nodes, data, out)
        return "".join(out)

    def _block(self) -> tuple[list[Node], str]:
        nodes: list[Node] = []
        while self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            self._at += 1
            if kind == "text":
                nodes.append(("text", text))
                continue
            word, _, rest = text.partition(" ")
            if word in ("end", "else"):
                return nodes, word
            if word in ("range", "if"):
                body, stop = self._block()
                other: list[Node] = []
                if stop == "else":
                    other, stop = self._block()
                if stop != "end":
                    raise TemplateError(f"'{{{{{word}}}}}' has no '{{{{end}}}}'")
                nodes.append((word, _words(rest), body, other))
            elif not word.startswith("/*"):
                nodes.append(("value", _words(text)))
        return nodes, ""


def _tokenize(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at, trim = 0, False
    text = text.replace("\\t", "\t").replace("\\n", "\n")
    for match in _ACTION.finditer(text):
        before = text[at : match.start()]
        before = before.lstrip() if trim else before
        tokens.append(("text", before.rstrip() if match[1] else before))
        tokens.append(("action", match[2]))
        at, trim = match.end(), bool(match[3])
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError("'{{' without '}}'")
    tokens.append(("text", rest.lstrip() if trim else rest))
    return tokens


def _words(text: str) -> list[str]:
    words: list[str] = _WORD.findall(text)
    if not words:
        raise TemplateError("'{{}}' is empty")
    return words


def _render(nodes: Sequence[Node], data: object, out: list[str]) -> None:
    for node in nodes:
        match node:
            case ("text", text):
                out.append(text)
            case ("value", words):
                out.append(_text(_evaluate(words, data)))
            case ("if", words, body, other):
                _render(body if _evaluate(words, data) else other, data, out)
            case ("range", words, body, other):
                found = _evaluate(words, data)
                items = list(found.values()) if isinstance(found, Mapping) else found
                if items and not isinstance(items, Sequence):
                    raise TemplateError(f"cannot range over {_text(items)}")
                for item in items or ():
                    _render(body, item, out)
                if not items:
                    _render(other, data, out)
            case _:
                raise AssertionError(node)


def _evaluate(words: list[str], data: object) -> Any:
    value, rest = _pipeline(words, data)
    if rest:
        raise TemplateError(f"unexpected '{rest[0]}'")
    return value


def _pipeline(words: list[str], data: object) -> tuple[Any, list[str]]:
    value: Any = None
    piped = False
    while True:
        operands: list[Any] = []
        function = ""
        while words and words[0] not in ("|", ")"):
            word, words = words[0], words[1:]
            if word == "(":
                inner, words = _pipeline(words, data)
                if not words or words[0] != ")":
                    raise TemplateError("'(' without ')'")
                words = words[1:]
                if words and len(words[0]) > 1 and words[0].startswith("."):
                    inner, words = _operand(words[0], inner), words[1:]
                operands.append(inner)
            elif not operands and not function and word in _FUNCTIONS:
                function = word
            else:
                operands.append(_operand(word, data))
        if piped:
            operands.append(value)
        value, piped = _apply(function, operands), True
        if not words or words[0] == ")":
            return value, words
        words = words[1:]


def _apply(function: str, operands: list[Any]) -> Any:
    if not function:
        if len(operands) != 1:
            raise TemplateError("a value or a function is expected")
        return operands[0]
    try:
        return _FUNCTIONS[function](*operands)
    except (TypeError, ValueError, LookupError, AttributeError) as exc:
        raise TemplateError(f"{function}: {exc}") from exc


def _operand(word: str, data: object) -> Any:
    if word[0] == '"':
        return json.loads(word)
    if word[0] == "`":
        return word[1:-1]
    if word in ("true", "false"):
        return word == "true"
    if word.lstrip("-").isdigit():
        return int(word)
    if word == "." or word == "$":
        return data
    if not word.startswith("."):
        raise TemplateError(f"there is no function '{word}'")
    value: Any = data
    for part in word[1:].split("."):
        if not isinstance(value, Mapping):
            return None
        value = _field(value, part)
    return value


def _field(mapping: Mapping[str, Any], name: str) -> Any:
    if name in mapping:
        return mapping[name]
    # Docker's CLI and its API differ in case now and then (ID and Id).
    for key, value in mapping.items():
        if key.lower() == name.lower():
            return value
    return None


def _text(value: Any) -> str:
    match value:
        case None:
            return "<no value>"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case Mapping():
            return "map[" + " ".join(f"{k}:{_text(v)}" for k, v in sorted(value.items())) + "]"
        case Sequence():
            return "[" + " ".join(_text(v) for v in value) + "]"
        case _:
            return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return value


_FUNCTIONS: Final[dict[str, Any]] = {
    "json": lambda v: json.dumps(v, ensure_ascii=False, separators=(",", ":")),
    "upper": lambda v: str(v).upper(),
    "lower": lambda v: str(v).lower(),
    "title": lambda v: str(v).title(),
    "len": len,
    "join": lambda v, sep: sep.join(_text(i) for i in v),
    "split": lambda v, sep: str(v).split(sep),
    "index": _index,
    "println": lambda *v: " ".join(_text(i) for i in v) + "\n",
    "print": lambda *v: "".join(_text(i) for i in v),
    "eq": lambda a, *b: a in b,
    "ne": lambda a, b: a != b,
    "not": lambda v: not v,
    "and": lambda *v: all(v) and v[-1],
    "or": lambda *v: next((i for i in v if i), v[-1]),
    "truncate": lambda v, n: str(v)[: int(n)],
}
