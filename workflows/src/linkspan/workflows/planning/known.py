"""Values that are known before a run: inputs, git and the matrix are, outputs of steps are not."""

from collections.abc import Mapping
from typing import Final

from linkspan.workflows.expressions import EvaluationFailed, Scope, evaluate
from linkspan.workflows.expressions.syntax import Call, Expr, Index, Literal, Member, Name, walk
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.values import Expression, Template, Value, resolve, resolve_text

LATER: Final = frozenset({"needs", "steps", "services", "secrets"})
"""Contexts that only a run fills."""
LATER_OF_RUN: Final = frozenset({"id", "attempt", "result", "duration"})
LATER_FUNCTIONS: Final = frozenset({"hash_files", "digest", "failure", "cancelled"})


class Known:
    """Evaluates what can be evaluated.

    Attributes:
        contexts: ``inputs``, ``git``, ``env``, ``matrix``, ``job``, ``run`` as far as they are known; a
            variable of ``env`` that is not known yet is None.
    """

    def __init__(self, contexts: Mapping[str, Json]) -> None:
        self.contexts = contexts

    def scope(self) -> Scope:
        """For values that are known; nothing has failed yet."""
        return Scope(contexts=self.contexts)

    def knows(self, tree: Expr) -> bool:
        """Whether an expression's value is known before the run."""
        return not any(self._is_later(node) for node in walk(tree))

    def _is_later(self, node: Expr) -> bool:
        match node:
            case Name(name=name):
                return name in LATER
            case Member(base=Name(name="run"), name=name):
                return name in LATER_OF_RUN
            case (
                Member(base=Name(name="env"), name=name)
                | Index(base=Name(name="env"), key=Literal(value=str(name)))
            ):
                env = self.contexts.get("env", {})
                return name in env and env[name] is None
            case Call(function=function):
                return function in LATER_FUNCTIONS
            case _:
                return False

    def condition(self, expression: Expression | None) -> bool | None:
        """The value of a condition; None if the run decides. Nothing has failed before it."""
        if expression is None:
            return True
        if not self.knows(expression.tree):
            return None
        try:
            value = evaluate(expression.tree, self.scope())
        except EvaluationFailed:
            return None
        return value if isinstance(value, bool) else None

    def text(self, text: Template | str | None) -> str | None:
        """A text; None if it is not known, or not there."""
        if text is None or isinstance(text, str):
            return text
        if any(isinstance(p, Expression) and not self.knows(p.tree) for p in text.parts):
            return None
        try:
            return resolve_text(text, self.scope())
        except EvaluationFailed:
            return None

    def env(self, texts: Mapping[str, Template | str]) -> dict[str, str | None]:
        """Variables; None for those that are not known."""
        return {name: self.text(text) for name, text in texts.items()}

    def value(self, value: Value) -> tuple[Json, list[str]]:
        """A value, and the sources of the expressions in it that are not known.

        A text that is not known is shown as it was written: ``${{ steps.push.outputs.image }}``.

        Raises:
            EvaluationFailed: A known expression has no value.
        """
        match value:
            case Template():
                unknown = [
                    part.source
                    for part in value.parts
                    if isinstance(part, Expression) and not self.knows(part.tree)
                ]
                return (_shown(value), unknown) if unknown else (resolve(value, self.scope()), [])
            case tuple():
                items = [self.value(item) for item in value]
                return [item for item, _ in items], [s for _, names in items for s in names]
            case dict():
                fields = {key: self.value(item) for key, item in value.items()}
                unknown = [source for _, names in fields.values() for source in names]
                return {key: item for key, (item, _) in fields.items()}, unknown
            case _:
                return value, []


def _shown(template: Template) -> str:
    return "".join(
        part if isinstance(part, str) else f"${{{{ {part.source} }}}}" for part in template.parts
    )
