"""The value of an expression that has been checked."""

from collections.abc import Callable, Mapping, Sequence

import attrs

from linkspan.workflows.expressions import syntax
from linkspan.workflows.expressions.faults import EvaluationFailed
from linkspan.workflows.expressions.functions import (
    FUNCTIONS,
    RUN_FUNCTIONS,
    STATUS_FUNCTIONS,
    same,
)
from linkspan.workflows.expressions.patterns import Pattern, PatternError
from linkspan.workflows.expressions.types import Json


@attrs.frozen(kw_only=True)
class Scope:
    """What an expression can see.

    Attributes:
        contexts: JSON values by name.
        status: Answers ``success``, ``failure``, ``always`` and ``cancelled``.
        call: Answers ``hash_files`` and ``digest``; raises ValueError for what it cannot.
    """

    contexts: Mapping[str, Json]
    status: Callable[[str], bool] = lambda name: name in {"success", "always"}
    call: Callable[[str, Sequence[Json]], Json] | None = None


def evaluate(tree: syntax.Expr, scope: Scope) -> Json:
    """The value, of JSON types.

    A name that does not exist is null where the checker could not know better (a key of
    ``from_json``, an output that a skipped job never wrote).

    Raises:
        EvaluationFailed: A value is not what an operator or a function takes.
    """
    match tree:
        case syntax.Literal():
            return tree.value
        case syntax.Name():
            return scope.contexts.get(tree.name)
        case syntax.Member():
            return _item(evaluate(tree.base, scope), tree.name, tree.name_start, tree.end)
        case syntax.Index():
            key = evaluate(tree.key, scope)
            return _item(evaluate(tree.base, scope), key, tree.key.start, tree.key.end)
        case syntax.Call():
            return _call(tree, scope)
        case syntax.Not():
            return not _truth(tree.operand, scope)
        case syntax.Binary():
            return _binary(tree, scope)
        case syntax.Conditional():
            chosen = tree.then if _truth(tree.condition, scope) else tree.otherwise
            return evaluate(chosen, scope)
        case syntax.ListOf():
            return [evaluate(item, scope) for item in tree.items]


def _item(base: Json, key: Json, start: int, end: int) -> Json:
    match base:
        case None:
            return None
        case Mapping():
            if not isinstance(key, str):
                raise EvaluationFailed("the key of a mapping must be a text", start, end)
            return base.get(key)
        case list() | tuple():
            if isinstance(key, bool) or not isinstance(key, int):
                raise EvaluationFailed("the place in a list must be a whole number", start, end)
            if not 0 <= key < len(base):
                raise EvaluationFailed(
                    f"the list has {len(base)} items, there is none at {key}", start, end
                )
            return base[key]
        case _:
            raise EvaluationFailed(f"'{key}' cannot be read from {_kind(base)}", start, end)


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if value is None:
        return "null"
    return "a list" if isinstance(value, (list, tuple)) else "a mapping"


def _truth(tree: syntax.Expr, scope: Scope) -> bool:
    value = evaluate(tree, scope)
    if not isinstance(value, bool):
        raise EvaluationFailed(
            f"this must be true or false, it is {_kind(value)}", tree.start, tree.end
        )
    return value


def _call(tree: syntax.Call, scope: Scope) -> Json:
    if tree.function in STATUS_FUNCTIONS:
        return scope.status(tree.function)
    function = FUNCTIONS[tree.function]
    values = [evaluate(arg, scope) for arg in tree.args]
    for position, (arg, value) in enumerate(zip(tree.args, values, strict=True)):
        # The checker has let `any value` through: what it really is shows only here.
        accepted = {kind.value for kind in function.kinds_at(position)}
        kind = _kind(value).removeprefix("a ")
        if kind not in accepted:
            raise EvaluationFailed(
                f"argument {position + 1} of {tree.function}() is {_kind(value)}",
                arg.start,
                arg.end,
            )
    try:
        if tree.function in RUN_FUNCTIONS:
            if scope.call is None:
                raise ValueError(f"{tree.function}() cannot be answered here")
            return scope.call(tree.function, values)
        return function.call(*values)
    except ValueError as fault:
        raise EvaluationFailed(str(fault), tree.start, tree.end) from fault


def _binary(tree: syntax.Binary, scope: Scope) -> bool:
    match tree.operator:
        case "&&":
            return _truth(tree.left, scope) and _truth(tree.right, scope)
        case "||":
            return _truth(tree.left, scope) or _truth(tree.right, scope)
        case _:
            pass
    left, right = evaluate(tree.left, scope), evaluate(tree.right, scope)
    match tree.operator:
        case "==":
            return same(left, right)
        case "!=":
            return not same(left, right)
        case "in":
            return _contained(tree, left, right)
        case "=~":
            return _matches(tree, left, right)
        case _:
            return _ordered(tree, left, right)


def _contained(tree: syntax.Binary, item: Json, holder: Json) -> bool:
    if isinstance(holder, Mapping):
        return isinstance(item, str) and item in holder
    if isinstance(holder, (list, tuple)):
        return any(same(item, each) for each in holder)
    raise EvaluationFailed(
        f"'in' looks into a list or a mapping, this is {_kind(holder)}",
        tree.right.start,
        tree.right.end,
    )


def _matches(tree: syntax.Binary, text: Json, pattern: Json) -> bool:
    if not isinstance(text, str) or not isinstance(pattern, str):
        raise EvaluationFailed("'=~' matches a text with a pattern", tree.start, tree.end)
    try:
        return Pattern(pattern).search(text)
    except PatternError as fault:
        raise EvaluationFailed(
            f"the pattern cannot be read: {fault}", tree.right.start, tree.right.end
        ) from fault


def _ordered(tree: syntax.Binary, left: Json, right: Json) -> bool:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (left, right))
    texts = isinstance(left, str) and isinstance(right, str)
    if not numbers and not texts:
        raise EvaluationFailed(
            f"'{tree.operator}' compares {_kind(left)} with {_kind(right)}", tree.start, tree.end
        )
    match tree.operator:
        case "<":
            return bool(left < right)
        case "<=":
            return bool(left <= right)
        case ">":
            return bool(left > right)
        case _:
            return bool(left >= right)
