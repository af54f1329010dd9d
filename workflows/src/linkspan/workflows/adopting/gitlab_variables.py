"""GitLab's predefined variables in our words: in scripts as variables, elsewhere as expressions."""

import re
from collections.abc import Mapping
from typing import Final

from linkspan.workflows.adopting.draft import Draft
from linkspan.workflows.parse import Node

_KNOWN: Final = {
    "CI_COMMIT_SHA": ("GIT_SHA", "git.sha"),
    "CI_COMMIT_SHORT_SHA": ("GIT_SHORT_SHA", "git.short_sha"),
    "CI_COMMIT_REF_NAME": ("GIT_BRANCH", "git.branch"),
    "CI_COMMIT_REF_SLUG": ("GIT_BRANCH", "git.branch"),
    "CI_COMMIT_BRANCH": ("GIT_BRANCH", "git.branch"),
    "CI_COMMIT_TAG": ("GIT_TAG", "git.tag"),
    "CI_PIPELINE_ID": ("RUN_ID", "run.id"),
    "CI_PIPELINE_IID": ("RUN_ID", "run.id"),
    "CI_JOB_NAME": ("JOB_ID", "job.id"),
    "CI_PROJECT_NAME": ("RUN_NAME", "run.name"),
}
_VARIABLE: Final = re.compile(r"\$(?:\{(?P<braced>\w+)\}|(?P<plain>[A-Za-z_]\w*))")


def as_variables(draft: Draft, node: Node, script: str) -> str:
    """A script with our names; what has none is told."""

    def replaced(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        if name == "CI_PROJECT_DIR":
            return "/workspace"
        if name in _KNOWN:
            return f"${{{_KNOWN[name][0]}}}" if match["braced"] else f"${_KNOWN[name][0]}"
        if name.startswith("CI_"):
            draft.lose(node, f"${name}", "it is not there; make it an input or a secret")
        return match[0]

    return _VARIABLE.sub(replaced, script)


def as_expressions(
    draft: Draft, node: Node, written: str, env: Mapping[str, str] | None = None
) -> str:
    """A text with expressions; variables of the file are put in, others are told.

    Args:
        draft: Has the variables of the whole file.
        node: Where the text stands.
        written: The text.
        env: More variables, in our words.
    """
    known = {**draft.top.get("env", {}), **(env or {})}

    def replaced(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        if name == "CI_PROJECT_DIR":
            return "/workspace"
        if name in _KNOWN:
            return f"${{{{ {_KNOWN[name][1]} }}}}"
        if name in known:
            return str(known[name])
        draft.lose(node, f"${name}", "it is not there; make it an input or a secret")
        return ""

    return _VARIABLE.sub(replaced, written.replace("${{", "$ {{"))
