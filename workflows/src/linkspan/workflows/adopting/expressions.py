"""Expressions of GitHub Actions in our words."""

import re
from collections.abc import Callable
from typing import Final

from linkspan.workflows.expressions import ExpressionInvalid, Kind, parse
from linkspan.workflows.expressions.functions import FUNCTIONS
from linkspan.workflows.expressions.syntax import (
    Binary,
    Call,
    Expr,
    Literal,
    Member,
    Name,
    Not,
    walk,
)
from linkspan.workflows.script import variable_of
from linkspan.workflows.values import TemplateInvalid, placeholders

_REF: Final = re.compile(r"github\.ref\s*(==|!=)\s*'refs/(heads|tags)/([^']*)'")
_STARTS: Final = re.compile(r"startsWith\(\s*github\.ref\s*,\s*'refs/(heads|tags)/([^']*)'\s*\)")
_EITHER: Final = re.compile(r"github\.head_ref\s*\|\|\s*github\.(?:ref_name|ref)\b")
"""The branch, whether it is that of a pull request or not."""
_PULL_REQUEST: Final = re.compile(r"github\.event_name\s*(==|!=)\s*'pull_request(?:_target)?'")
_NAMES: Final[tuple[tuple[str, str], ...]] = (
    (r"github\.event\.inputs\.", "inputs."),
    (r"github\.sha\b", "git.sha"),
    (r"github\.(?:ref_name|head_ref|ref)\b", "git.branch"),
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


def translate(source: str, *, value: bool = False) -> str | None:
    """An expression in our words; None if it has no counterpart.

    Args:
        source: In theirs.
        value: It is no condition: ``a || b`` is the first that is there, ``a && b || c`` one of two.
    """
    text = _EITHER.sub("git.branch", source)
    # There are no pull requests here.
    text = _PULL_REQUEST.sub(lambda m: "false" if m[1] == "==" else "true", text)
    text = _STARTS.sub(
        lambda m: f"starts_with(git.{'branch' if m[1] == 'heads' else 'tag'}, '{m[2]}')", text
    )
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
    if not all(_known(node) for node in walk(tree)):
        return None
    return _chosen(tree, found) if value else found


def _chosen(tree: Expr, source: str) -> str:
    """A value that is chosen by ``&&`` and ``||``, with ``?:``."""

    def words(node: Expr) -> str:
        return source[node.start : node.end]

    def asked(node: Expr) -> str:
        match node:
            case Member(base=Name(name="inputs")):
                # Most likely a boolean; `lint` tells if not.
                return words(node)
            case _:
                return words(node) if _is_condition(node) else f"{words(node)} != ''"

    match tree:
        case Binary(
            operator="||", left=Binary(operator="&&", left=left, right=then), right=otherwise
        ) if not (_is_condition(then) and _is_condition(otherwise)):
            return f"{asked(left)} ? {_chosen(then, source)} : {_chosen(otherwise, source)}"
        case Binary(operator="||", left=left, right=otherwise) if not _is_condition(otherwise):
            return f"{asked(left)} ? {words(left)} : {_chosen(otherwise, source)}"
        case Binary(operator="&&", left=left, right=then) if not _is_condition(then):
            return f"{asked(left)} ? {_chosen(then, source)} : ''"
        case _:
            return words(tree)


def _is_condition(node: Expr) -> bool:
    match node:
        case Binary(operator="&&" | "||", left=left, right=right):
            return _is_condition(left) and _is_condition(right)
        case Call(function=function):
            return FUNCTIONS[function].returns.kind is Kind.BOOL if function in FUNCTIONS else False
        case Binary() | Not():
            return True
        case Literal(value=value):
            return isinstance(value, bool)
        case _:
            return False


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


def template(
    source: str, lost: Callable[[str], None], gone: Callable[[str], bool] = lambda _: False
) -> str:
    """A text with expressions in our words; those without counterpart are told and left empty.

    Args:
        source: In theirs.
        lost: Told of each.
        gone: Whether an expression in our words reads what is not there.
    """
    return _replaced(source, lost, lambda found: f"${{{{ {found} }}}}", gone)


def script(
    source: str,
    lost: Callable[[str], None],
    env: dict[str, str],
    gone: Callable[[str], bool] = lambda _: False,
) -> str:
    """A script with environment variables in place of expressions; see ``template``.

    Args:
        source: In theirs.
        lost: Told of each.
        env: Gets a variable for each expression that has none of its own.
        gone: Whether an expression in our words reads what is not there.
    """

    def shown(found: str) -> str:
        _, name = variable_of(found)
        if not name:
            name = next((key for key, value in env.items() if value == f"${{{{ {found} }}}}"), "")
        if not name:
            name = f"VALUE_{len(env) + 1}"
            env[name] = f"${{{{ {found} }}}}"
        return f"${{{name}}}"

    return _replaced(source, lost, shown, gone)


def _replaced(
    source: str,
    lost: Callable[[str], None],
    shown: Callable[[str], str],
    gone: Callable[[str], bool],
) -> str:
    try:
        found = list(placeholders(source))
    except TemplateInvalid:
        lost(source)
        return source.replace("${{", "")
    parts: list[str] = []
    at = 0
    for start, source_start, source_end, end in found:
        inner = source[source_start:source_end]
        ours = translate(inner, value=True)
        if ours is None or gone(ours):
            lost(inner)
            ours = None
        parts += [source[at:start], "" if ours is None else shown(ours)]
        at = end
    return "".join([*parts, source[at:]])


def secrets_in(source: str) -> list[str]:
    """Names of the secrets that a text of ours reads."""
    return re.findall(r"\bsecrets\.([A-Za-z_]\w*)", source)


_VARIABLES: Final = {
    "GITHUB_OUTPUT": "LINKSPAN_OUTPUT",
    "GITHUB_SHA": "GIT_SHA",
    "GITHUB_REF_NAME": "GIT_BRANCH",
    "GITHUB_HEAD_REF": "GIT_BRANCH",
    "GITHUB_RUN_ID": "RUN_ID",
    "GITHUB_RUN_ATTEMPT": "RUN_ATTEMPT",
    "GITHUB_JOB": "JOB_ID",
    "GITHUB_WORKFLOW": "RUN_NAME",
}
_MISSING: Final = re.compile(
    r"\bGITHUB_(?:ENV|PATH|STEP_SUMMARY|EVENT_PATH|TOKEN|REPOSITORY|ACTOR|REF)\b"
)
_BASH: Final = re.compile(
    r"\[\[ |<<<|pipefail|\$\{\w+(?://|,,|\^\^|\[|@)|\w+=\(|^\s*source ", re.MULTILINE
)


def renamed(source: str) -> tuple[str, list[str]]:
    """A script with our names of GitHub's variables, and the variables that have none."""
    for theirs, ours in _VARIABLES.items():
        source = re.sub(rf"\b{theirs}\b", ours, source)
    source = re.sub(r"\$\{?GITHUB_WORKSPACE\b\}?", "/workspace", source)
    return source, list(dict.fromkeys(_MISSING.findall(source)))


def needs_bash(source: str) -> bool:
    """Whether a script is written for bash, which is the shell of scripts there."""
    return _BASH.search(source) is not None
