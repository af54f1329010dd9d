"""The check before the run: every name, function, arity, and comparison of unlike types."""

from collections.abc import Mapping

from linkspan.sdk.diagnostics import Label, did_you_mean
from linkspan.workflows.expressions import syntax
from linkspan.workflows.expressions.faults import ExpressionFault, ExpressionInvalid
from linkspan.workflows.expressions.functions import FUNCTIONS, STATUS_FUNCTIONS
from linkspan.workflows.expressions.patterns import Pattern, PatternError
from linkspan.workflows.expressions.types import (
    ANY,
    BOOL,
    NO_FLAGS,
    Kind,
    Type,
    flagged,
    of_value,
    unify,
)

_ORDERED = {Kind.NUMBER, Kind.TEXT}


def infer(
    tree: syntax.Expr, contexts: Mapping[str, Type], source: str
) -> tuple[Type, list[ExpressionFault]]:
    """The type of an expression, and all that is wrong with it.

    Args:
        tree: The expression.
        contexts: The type of each name it may begin with.
        source: Its text, for help lines.
    """
    checker = _Checker(contexts, source)
    return checker.type_of(tree), checker.faults


def decides_about_failure(tree: syntax.Expr) -> bool:
    """Whether a condition says itself what happens after a failure.

    It does when it calls ``success()``, ``failure()``, ``always()`` or ``cancelled()``, or reads
    ``needs.X.result``; otherwise ``success() &&`` is understood before it.
    """
    for node in syntax.walk(tree):
        match node:
            case syntax.Call(function=function) if function in STATUS_FUNCTIONS:
                return True
            case syntax.Member(base=syntax.Member(base=syntax.Name(name="needs")), name="result"):
                return True
            case _:
                pass
    return False


class _Checker:
    def __init__(self, contexts: Mapping[str, Type], source: str) -> None:
        self.contexts = contexts
        self.source = source
        self.faults: list[ExpressionFault] = []

    def _fault(
        self,
        id_: str,
        headline: str,
        start: int,
        end: int,
        *helps: str,
        label: str = "",
        secondary: tuple[Label, ...] = (),
    ) -> None:
        self.faults.append(
            ExpressionFault(
                id=id_,
                headline=headline,
                start=start,
                end=end,
                label=label,
                secondary=secondary,
                helps=helps,
            )
        )

    def type_of(self, tree: syntax.Expr) -> Type:
        match tree:
            case syntax.Literal():
                return of_value(tree.value)
            case syntax.Name():
                return self._name(tree)
            case syntax.Member():
                return self._field(
                    self.type_of(tree.base), tree.name, tree.name_start, tree.end, tree.start
                )
            case syntax.Index():
                return self._index(tree)
            case syntax.Call():
                return self._call(tree)
            case syntax.Not():
                self._want_bool(tree.operand)
                return BOOL
            case syntax.Binary():
                return self._binary(tree)
            case syntax.Conditional():
                self._want_bool(tree.condition)
                return unify(self.type_of(tree.then), self.type_of(tree.otherwise))
            case syntax.ListOf():
                types = [self.type_of(item) for item in tree.items]
                item = types[0] if types else ANY
                for other in types[1:]:
                    item = unify(item, other)
                return Type(kind=Kind.LIST, item=item, flags=item.flags)

    def _name(self, tree: syntax.Name) -> Type:
        found = self.contexts.get(tree.name)
        if found is None:
            names = ", ".join(sorted(self.contexts))
            near = did_you_mean(tree.name, self.contexts)
            helps = [f"did you mean '{near}'?"] if near else []
            if tree.name in FUNCTIONS:
                helps = [f"'{tree.name}' is a function: write {tree.name}()"]
            elif not near:
                helps = [f"a text is quoted: '{tree.name}'"]
            self._fault(
                "LS1201",
                f"'{tree.name}' does not exist; expressions can read {names}",
                tree.start,
                tree.end,
                *helps,
            )
            return ANY
        return found

    def _field(self, base: Type, name: str, start: int, end: int, path_start: int) -> Type:
        if base.kind is Kind.ANY:
            return flagged(ANY, base.flags)
        if base.kind is not Kind.MAP:
            self._fault("LS1201", f"'{name}' cannot be read from a {base.kind.value}", start, end)
            return ANY
        if base.fields is None:
            return flagged(base.item or ANY, base.flags)
        found = base.fields.get(name)
        if found is not None:
            return flagged(found, base.flags)
        if base.explain is not None:
            better = base.explain(name, path_start, end)
            if better is not None:
                self.faults.append(better)
                return ANY
        near = did_you_mean(name, base.fields)
        if near is not None:
            helps = [f"did you mean '{near}'?"]
        elif base.fields:
            helps = [f"there are: {', '.join(base.fields)}"]
        else:
            helps = [f"there are no {base.what.removeprefix('the ')}"] if base.what else []
        where = f" in {base.what}" if base.what else ""
        self._fault("LS1201", f"'{name}' does not exist{where}", start, end, *helps)
        return ANY

    def _index(self, tree: syntax.Index) -> Type:
        base = self.type_of(tree.base)
        key = self.type_of(tree.key)
        wanted = {Kind.LIST: Kind.NUMBER, Kind.MAP: Kind.TEXT}.get(base.kind)
        if base.kind is not Kind.ANY and wanted is None:
            self._fault(
                "LS1205",
                f"'[]' takes an item of a list or a mapping, this is a {base.kind.value}",
                tree.base.start,
                tree.base.end,
            )
            return ANY
        if wanted is not None and key.kind not in {wanted, Kind.ANY}:
            self._fault(
                "LS1205",
                f"the key of a {base.kind.value} is a {wanted.value}, found a {key.kind.value}",
                tree.key.start,
                tree.key.end,
            )
            return ANY
        if isinstance(tree.key, syntax.Literal) and isinstance(tree.key.value, str):
            return self._field(base, tree.key.value, tree.key.start, tree.key.end, tree.start)
        return flagged(base.item or ANY, base.flags)

    def _call(self, tree: syntax.Call) -> Type:
        types = [self.type_of(arg) for arg in tree.args]
        function = FUNCTIONS.get(tree.function)
        if function is None:
            self._unknown_function(tree)
            return ANY
        least, most = function.bounds()
        if len(types) < least or (most is not None and len(types) > most):
            self._fault(
                "LS1205",
                f"{tree.function}() takes {function.arity()}, found {len(types)}",
                tree.start,
                tree.end,
            )
            return function.returns
        for position, (arg, found) in enumerate(zip(tree.args, types, strict=True)):
            kinds = function.kinds_at(position)
            if found.kind is not Kind.ANY and found.kind not in kinds:
                wanted = " or ".join(sorted(kind.value for kind in kinds))
                self._fault(
                    "LS1205",
                    f"argument {position + 1} of {tree.function}() must be a {wanted}, "
                    f"found a {found.kind.value}",
                    arg.start,
                    arg.end,
                )
        if tree.function == "default":
            return unify(*types)
        if function.returns.kind is Kind.BOOL:
            return function.returns
        return flagged(function.returns, NO_FLAGS.union(*(found.flags for found in types)))

    def _unknown_function(self, tree: syntax.Call) -> None:
        end = tree.start + len(tree.function)
        near = did_you_mean(tree.function, FUNCTIONS)
        helps = f"did you mean '{near}'?" if near else f"functions: {', '.join(sorted(FUNCTIONS))}"
        self._fault(
            "LS1201", f"the function '{tree.function}' does not exist", tree.start, end, helps
        )

    def _want_bool(self, tree: syntax.Expr) -> None:
        found = self.type_of(tree)
        if found.kind not in {Kind.BOOL, Kind.ANY}:
            text = self.source[tree.start : tree.end]
            hint = {Kind.TEXT: f"{text} != ''", Kind.NUMBER: f"{text} != 0", Kind.LIST: ""}
            helps = [f"say what you ask: {hint[found.kind]}"] if hint.get(found.kind) else []
            self._fault(
                "LS1205",
                f"this must be true or false, found a {found.kind.value}",
                tree.start,
                tree.end,
                *helps,
            )

    def _binary(self, tree: syntax.Binary) -> Type:
        if tree.operator in {"&&", "||"}:
            self._want_bool(tree.left)
            self._want_bool(tree.right)
            return BOOL
        left, right = self.type_of(tree.left), self.type_of(tree.right)
        match tree.operator:
            case "in":
                self._check_in(tree, left, right)
            case "=~":
                self._check_match(tree, left, right)
            case "==" | "!=":
                self._check_alike(tree, left, right)
            case _:
                self._check_order(tree, left, right)
        return BOOL

    def _check_alike(self, tree: syntax.Binary, left: Type, right: Type) -> bool:
        free = {Kind.ANY, Kind.NULL}
        if left.kind in free or right.kind in free or left.kind is right.kind:
            return True
        always = "true" if tree.operator == "!=" else "false"
        secondary = tuple(
            Label(span=side.declared, text=f"declared as a {side.kind.value} here")
            for side in (left, right)
            if side.declared is not None
        )
        self._fault(
            "LS1203",
            f"comparing a {left.kind.value} with a {right.kind.value} is always {always}",
            tree.start,
            tree.end,
            *self._quotes_help(tree, left, right),
            label=f"{left.kind.value} {tree.operator} {right.kind.value}",
            secondary=secondary,
        )
        return False

    def _quotes_help(self, tree: syntax.Binary, left: Type, right: Type) -> list[str]:
        """The comparison with the literal's quotes dropped or added, where that mends it."""
        for side, other in ((tree.right, left), (tree.left, right)):
            if not isinstance(side, syntax.Literal):
                continue
            raw = self.source[side.start : side.end]
            if isinstance(side.value, str) and _reads_as(side.value, other.kind):
                return [f"drop the quotes: {self._replaced(tree, side, side.value)}"]
            if other.kind is Kind.TEXT and not isinstance(side.value, str):
                return [f"quote it: {self._replaced(tree, side, repr(raw))}"]
        return []

    def _replaced(self, tree: syntax.Binary, part: syntax.Literal, text: str) -> str:
        source = self.source
        return source[tree.start : part.start] + text + source[part.end : tree.end]

    def _check_order(self, tree: syntax.Binary, left: Type, right: Type) -> None:
        if not self._check_alike(tree, left, right):
            return
        for side, found in ((tree.left, left), (tree.right, right)):
            if found.kind is not Kind.ANY and found.kind not in _ORDERED:
                self._fault(
                    "LS1205",
                    f"'{tree.operator}' compares numbers or texts, found a {found.kind.value}",
                    side.start,
                    side.end,
                )

    def _check_in(self, tree: syntax.Binary, left: Type, right: Type) -> None:
        if right.kind is Kind.ANY:
            return
        if right.kind not in {Kind.LIST, Kind.MAP}:
            self._fault(
                "LS1205",
                f"'in' looks into a list or a mapping, found a {right.kind.value}",
                tree.right.start,
                tree.right.end,
                "for a part of a text: contains(text, part)",
            )
            return
        item = right.item if right.kind is Kind.LIST else Type(kind=Kind.TEXT)
        if item is not None and not {left.kind, item.kind} & {Kind.ANY, Kind.NULL}:
            self._check_alike(tree, left, item)

    def _check_match(self, tree: syntax.Binary, left: Type, right: Type) -> None:
        for side, found in ((tree.left, left), (tree.right, right)):
            if found.kind not in {Kind.TEXT, Kind.ANY}:
                self._fault(
                    "LS1205",
                    f"'=~' matches a text with a pattern, found a {found.kind.value}",
                    side.start,
                    side.end,
                )
        if isinstance(tree.right, syntax.Literal) and isinstance(tree.right.value, str):
            try:
                Pattern(tree.right.value)
            except PatternError as fault:
                self._fault(
                    "LS1204",
                    f"the pattern cannot be read: {fault}",
                    tree.right.start,
                    tree.right.end,
                )


def _reads_as(text: str, kind: Kind) -> bool:
    if kind is Kind.BOOL:
        return text in {"true", "false"}
    if kind is not Kind.NUMBER:
        return False
    try:
        tree = syntax.parse(text)
    except ExpressionInvalid:
        return False
    return isinstance(tree, syntax.Literal) and of_value(tree.value).kind is Kind.NUMBER
