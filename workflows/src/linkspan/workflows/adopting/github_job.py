"""A job of a GitHub workflow in the making."""

import re
from typing import Any

import attrs

from linkspan.workflows.adopting.draft import Draft, text
from linkspan.workflows.adopting.expressions import template
from linkspan.workflows.parse import Node


@attrs.define(kw_only=True)
class JobDraft:
    """A job in the making.

    Attributes:
        image: Of its scripts; a set-up action may choose a better one.
        chosen: Whether an image was written, or chosen by an action.
        gone: Ids of steps that have no counterpart.
        tags: By id of a step that makes names for images: those.
        moved: What a step of theirs gives → which step of ours gives it.
    """

    draft: Draft
    table: dict[str, Any]
    image: str = ""
    chosen: bool = False
    caches: list[dict[str, Any]] = attrs.field(factory=list)
    artifacts: dict[str, Any] = attrs.field(factory=dict)
    loads: list[Any] = attrs.field(factory=list)
    gone: set[str] = attrs.field(factory=set)
    tags: dict[str, list[str]] = attrs.field(factory=dict)
    moved: dict[str, str] = attrs.field(factory=dict)

    def reads_gone(self, source: str) -> bool:
        """Whether a text of ours reads a step that has no counterpart."""
        return any(re.search(rf"\bsteps\.{re.escape(each)}(?![\w-])", source) for each in self.gone)

    def lost(self, node: Node) -> Any:
        """Tells of an expression without counterpart."""
        return lambda found: self.draft.lose(
            node, f"${{{{ {found} }}}}", "this expression has no counterpart; it is empty now"
        )

    def template(self, node: Node) -> str:
        """A text with expressions in our words."""
        return template(self.follow(text(node)), self.lost(node), self.reads_gone)

    def follow(self, source: str) -> str:
        """A text of theirs, with what is given by another step of ours."""
        for old, new in self.moved.items():
            literal = new.replace("\\", r"\\")
            source = re.sub(rf"(?<![\w.-]){re.escape(old)}(?![\w-])", literal, source)
        return source
