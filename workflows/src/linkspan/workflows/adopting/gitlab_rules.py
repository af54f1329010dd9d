"""When a job of GitLab runs: ``rules``, ``only``, ``except`` and ``when`` as one condition."""

import re
from typing import Final

from linkspan.workflows.adopting.draft import Draft, fields, items, text
from linkspan.workflows.expressions import ExpressionInvalid, parse
from linkspan.workflows.parse import Field, Node

_NAMES: Final = {
    "CI_COMMIT_BRANCH": "git.branch",
    "CI_COMMIT_REF_NAME": "git.branch",
    "CI_COMMIT_TAG": "git.tag",
    "CI_COMMIT_SHA": "git.sha",
}
_TOKEN: Final = re.compile(
    r"\s*(?:\$\{?(?P<name>\w+)\}?|(?P<text>\"[^\"]*\"|'[^']*')|/(?P<pattern>(?:[^/\\]|\\.)+)/(?P<flags>i?)"
    r"|(?P<operator>==|!=|=~|!~|&&|\|\||\(|\)))"
)
_WHEN: Final = {"always": "always()", "on_failure": "failure()", "on_success": ""}
_BY_HAND: Final = (
    "nothing waits for a click here: ask with the verb `approve`, or run it with --only"
)


def rules_of(draft: Draft, own: dict[str, Field]) -> str | bool | None:
    """``rules``: the first that fits decides; None if the job always runs."""
    found: list[str] = []
    refused: list[str] = []
    for item in items(own["rules"].value):
        rule = fields(item)
        when = text(rule["when"].value) if "when" in rule else "on_success"
        for key in rule.keys() - {"if", "when", "allow_failure"}:
            draft.lose(rule[key].key, f"rules.{key}", "write it into the job's `if`")
        if when == "manual":
            draft.lose(rule["when"].key, "when: manual", _BY_HAND)
        asked = _condition(text(rule["if"].value)) if "if" in rule else "true"
        if asked is None:
            why = "the condition has no counterpart; it never fits"
            draft.lose(rule["if"].key, f"if: {text(rule['if'].value)}", why)
            continue
        if when == "never":
            refused.append(f"!({asked})")
            continue
        parts = [*refused, *([] if asked == "true" else [asked]), *filter(None, [_WHEN.get(when)])]
        if not parts:
            found.append("true")
            break
        found.append(" && ".join(f"({part})" if "||" in part else part for part in parts))
        if asked == "true":
            break
    if not found:
        return False
    if "true" in found:
        return None
    return found[0] if len(found) == 1 else " || ".join(f"({each})" for each in found)


def without_rules(draft: Draft, own: dict[str, Field]) -> str | bool | None:
    """``only``, ``except`` and ``when``; None if the job always runs."""
    parts: list[str] = []
    for key, sign in (("only", ""), ("except", "!")):
        if key in own:
            refs = [each for item in _refs(own[key].value) if (each := _ref(draft, item))]
            if refs:
                parts.append(f"{sign}({' || '.join(refs)})")
            elif key == "only":
                return False
    when = text(own["when"].value) if "when" in own else ""
    if when in ("manual", "delayed"):
        draft.lose(own["when"].key, f"when: {when}", _BY_HAND)
        return False
    if _WHEN.get(when):
        parts.append(_WHEN[when])
    return " && ".join(parts) or None


def _refs(node: Node) -> tuple[Node, ...]:
    own = fields(node)
    return items(own["refs"].value) if "refs" in own else () if own else items(node)


def _ref(draft: Draft, node: Node) -> str:
    word = text(node)
    match word:
        case "branches":
            return "git.branch != ''"
        case "tags":
            return "git.tag != ''"
        case "pushes" | "web":
            return "true"
        case (
            "merge_requests" | "schedules" | "triggers" | "pipelines" | "api" | "external" | "chat"
        ):
            draft.lose(node, word, "linkspan runs no forge; write `on:` for the pipeline")
            return ""
        case _ if word.startswith("/") and word.rstrip("i").endswith("/"):
            return f"git.branch =~ {_quoted(word.rstrip('i')[1:-1])}"
        case _:
            return f"git.branch == {_quoted(word)}"


def _quoted(word: str) -> str:
    inner = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{inner}'"


def _condition(source: str) -> str | None:
    """A condition in our words; None if it has no counterpart."""
    parts: list[str] = []
    at = 0
    source = source.strip()
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None or match["flags"] or match["operator"] == "!~":
            return None
        at = match.end()
        if match["name"]:
            if match["name"] not in _NAMES and match["name"] != "CI_DEFAULT_BRANCH":
                return None
            # What the forge calls the default branch is called so almost everywhere.
            parts.append(_NAMES.get(match["name"], "'main'"))
        elif match["text"]:
            parts.append(_quoted(match["text"][1:-1]))
        elif match["pattern"]:
            parts.append(_quoted(match["pattern"].replace("\\/", "/")))
        else:
            parts.append(match["operator"])
    found = " ".join(_asked(parts))
    try:
        parse(found)
    except ExpressionInvalid:
        return None
    return found


def _asked(parts: list[str]) -> list[str]:
    """A variable that stands alone is asked whether it is there."""
    compared = {"==", "!=", "=~"}
    found: list[str] = []
    for index, part in enumerate(parts):
        beside = {*parts[index - 1 : index], *parts[index + 1 : index + 2]}
        found.append(f"{part} != ''" if part.startswith("git.") and not beside & compared else part)
    return found
