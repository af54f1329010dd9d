"""What is wrong with an expression; places count within the expression's own text."""

import attrs

from linkspan.sdk.diagnostics import Label


@attrs.frozen(kw_only=True)
class ExpressionFault:
    """One fault.

    Attributes:
        start, end: Character indexes in the expression's own text.
        label: Remark beside the caret.
        secondary: Other places of the file, already positioned.
    """

    id: str
    headline: str
    start: int
    end: int
    label: str = ""
    secondary: tuple[Label, ...] = ()
    helps: tuple[str, ...] = ()


class ExpressionInvalid(Exception):
    """The expression cannot be read."""

    def __init__(self, fault: ExpressionFault) -> None:
        super().__init__(fault.headline)
        self.fault = fault


class EvaluationFailed(Exception):
    """The expression is sound, but its values are not; ``start`` and ``end`` say where."""

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.message = message
        self.start = start
        self.end = end
