"""The expression language: a strict, statically typed subset of CEL with the look of GitHub's.

``syntax`` reads it, ``typing`` checks it before anything runs, ``evaluate`` gives its value.
"""

from linkspan.workflows.expressions.evaluate import Scope, evaluate
from linkspan.workflows.expressions.faults import (
    EvaluationFailed,
    ExpressionFault,
    ExpressionInvalid,
)
from linkspan.workflows.expressions.functions import plain_text
from linkspan.workflows.expressions.syntax import Expr, parse
from linkspan.workflows.expressions.types import Kind, Type
from linkspan.workflows.expressions.typing import decides_about_failure, infer

__all__ = [
    "EvaluationFailed",
    "Expr",
    "ExpressionFault",
    "ExpressionInvalid",
    "Kind",
    "Scope",
    "Type",
    "decides_about_failure",
    "evaluate",
    "infer",
    "parse",
    "plain_text",
]
