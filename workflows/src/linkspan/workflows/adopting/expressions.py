"""Expressions of GitHub Actions in our words."""

import re
from collections.abc import Callable
from typing import Final

from linkspan.workflows.expressions import ExpressionInvalid, parse
from linkspan.workflows.expressions.syntax import Call, Expr, Member, Name, walk
from linkspan.workflows.script import variable_of
from linkspan.workflows.values import TemplateInvalid, placeholders

_REF: Final = re.compile(r"github\.ref\s*(==|!=)\s*'refs/(heads|tags)/([^']*)'")
_STARTS: Final = re.compile(r"startsWith\(\s*github\.ref\s*,\s*'refs/tags/([^']*)'\s*\)")
_NAMES: Final[tuple[tuple[str, str], ...]] = (
    (r"github\.event\.inputs\.", "inputs."),
    (r"github\.sha\b", "git.sha"),
    (r"github\.(?:ref_name|head_ref)\b", "git.branch"),
    (r"github\.run_id\b", "run.id"),
    (r"github\.run_attempt\b", "run.attempt"),
    (r"github\.workflow\b", "run.name"),
    (r"github\.job\b", "job.id"),
    (r"\bsteps\.([\w-]+)\.(?:outcome|conclusion)\b", r"steps.\1.result"),
    (r"\bstartsWith\(", "starts_with("),
    (r"\bendsWith\(", "ends_with("),
    (r"\btoJSON\(", "to_json("),
    (r"\bfromJSON\(", "from_json("),
    (r"\bhashFiles\(", "hash_files("),
)
_CONTEXTS: Final = frozenset({"inputs", "env", "secrets", "needs", "steps", "matrix", "git", "run"})


def translate(source: str) -> str | None:
    """An expression in our words; None if it has no counterpart."""
    text = _STARTS.sub(r"starts_with(git.tag, '\1')", source)
    text = _REF.sub(lambda m: f"git.{'branch' if m[2] == 'heads' else 'tag'} {m[1]} '{m[3]}'", text)
    # What is inside of quotes is text, not a name.
    parts = re.split(r"('(?:[^']|'')*')", text)
    for index in range(0, len(parts), 2):
        for pattern, new in _NAMES:
            parts[index] = re.sub(pattern, new, parts[index])
    for index in range(1, len(parts), 2):
        inner = parts[index][1:-1].replace("\\", "\\\\").replace("''", "\\'")
        parts[index] = f"'{inner}'"
    found = "".join(parts).strip()
    try:
        tree = parse(found)
    except ExpressionInvalid:
        return None
    return found if all(_known(node) for node in walk(tree)) else None


def _known(node: Expr) -> bool:
    match node:
        case Name(name=name):
            return name in {*_CONTEXTS, "job", "runner", "services"}
        case Member(base=Name(name="runner"), name=name):
            return name in {"os", "arch"}
        case Call():
            return True
        case _:
            return True


def condition(source: str) -> str | None:
    """An ``if`` in our words."""
    text = source.strip()
    if text.startswith("${{") and text.endswith("}}"):
        text = text[3:-2].strip()
    return None if "${{" in text else translate(text)


def template(source: str, lost: Callable[[str], None]) -> str:
    """A text with expressions in our words; those without counterpart are told and left empty."""
    return _replaced(source, lost, lambda found: f"${{{{ {found} }}}}")


def script(source: str, lost: Callable[[str], None], env: dict[str, str]) -> str:
    """A script with environment variables in place of expressions.

    Args:
        env: Gets a variable for each expression that has none of its own.
    """

    def shown(found: str) -> str:
        _, name = variable_of(found)
        if not name:
            name = next((key for key, value in env.items() if value == f"${{{{ {found} }}}}"), "")
        if not name:
            name = f"VALUE_{len(env) + 1}"
            env[name] = f"${{{{ {found} }}}}"
        return f"${{{name}}}"

    return _replaced(source, lost, shown)


def _replaced(source: str, lost: Callable[[str], None], shown: Callable[[str], str]) -> str:
    try:
        found = list(placeholders(source))
    except TemplateInvalid:
        lost(source)
        return source.replace("${{", "")
    parts: list[str] = []
    at = 0
    for start, source_start, source_end, end in found:
        inner = source[source_start:source_end]
        ours = translate(inner)
        if ours is None:
            lost(inner)
        parts += [source[at:start], "" if ours is None else shown(ours)]
        at = end
    return "".join([*parts, source[at:]])


def secrets_in(source: str) -> list[str]:
    """Names of the secrets that a text of ours reads."""
    return re.findall(r"\bsecrets\.([A-Za-z_]\w*)", source)
