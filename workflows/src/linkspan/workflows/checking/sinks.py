"""Where values go: what kind is wanted there, and which flags a place may not get."""

import attrs

from linkspan.workflows.expressions import Kind, Type
from linkspan.workflows.expressions.syntax import Index, Literal, Member, Name, walk
from linkspan.workflows.expressions.types import DERIVED, UNTRUSTED
from linkspan.workflows.reader import Reader
from linkspan.workflows.values import CLOSE, OPEN, Expression


@attrs.frozen(kw_only=True)
class Sink:
    """A place for a value.

    Attributes:
        kind: What the value must be.
        what: The place in words.
        secret: Whether secrets may go there.
        code: Whether what goes there is read as code, so that no stranger may write it.
        what_for: Why it is no place for a secret.
        taker: The setting of the same verb that takes secrets by name; empty if there is none.
    """

    kind: Kind = Kind.TEXT
    what: str = "this value"
    secret: bool = False
    code: bool = False
    what_for: str = "it is shown and recorded with the run"
    taker: str = ""


PLAIN = Sink()
SECRET_TEXT = Sink(secret=True)
CODE = Sink(code=True)


def flag_faults(reader: Reader, expression: Expression, found: Type, sink: Sink) -> bool:
    """LS1303 and LS1306; whether one was noted."""
    if not sink.secret:
        name = secret_in(expression)
        if name is not None or "secret" in found.flags:
            _leaks(reader, expression, name, sink)
            return True
    if sink.code and found.flags & (UNTRUSTED | DERIVED):
        _code(reader, expression, found, sink)
        return True
    return False


def _code(reader: Reader, expression: Expression, found: Type, sink: Sink) -> None:
    start, length = _whole(expression)
    span = reader.document.span_at(reader.document.index_in(expression.node, start), length)
    why = sink.what_for if sink.what_for != PLAIN.what_for else "a shell reads this"
    if found.flags & UNTRUSTED:
        reader.fault(
            "LS1306",
            "what a stranger may have written would be read as code",
            span,
            why,
            helps=["give it to the container as an environment variable, and quote it there"],
        )
        return
    reader.fault(
        "LS1306",
        "a script has made this of what a stranger may have written, and it would be read as code",
        span,
        why,
        notes=["if the script lets nothing else through:  # linkspan: allow LS1306 <reason>"],
        helps=["pass it through an input with a `pattern`, of a pipeline that this one calls"],
        severity="warning",
    )


def _leaks(reader: Reader, expression: Expression, name: str | None, sink: Sink) -> None:
    start, length = _whole(expression)
    index = reader.document.index_in(expression.node, start)
    helps = ["read it in `env` of the step that needs it"]
    if sink.taker and name:
        helps = [f"mount it instead:  with: {{{sink.taker}: {{{name.lower()}: {name}}}}}"]
    reader.fault(
        "LS1303",
        f"secret '{name}' would end up in a plain, unmasked place"
        if name
        else "a secret would end up in a plain, unmasked place",
        reader.document.span_at(index, length),
        sink.what_for,
        helps=helps,
    )


def _whole(expression: Expression) -> tuple[int, int]:
    """Start and length of an expression with the ``${{ }}`` around it, in its scalar's value."""
    text = expression.node.text
    start = text.rfind(OPEN, 0, expression.offset)
    end = text.find(CLOSE, expression.offset + len(expression.source))
    if start < 0 or end < 0:
        return expression.offset, len(expression.source)
    return start, end + len(CLOSE) - start


def secret_in(expression: Expression) -> str | None:
    """The first secret that an expression names itself; None if there is none."""
    for node in walk(expression.tree):
        match node:
            case Member(base=Name(name="secrets"), name=name):
                return name
            case Index(base=Name(name="secrets"), key=Literal(value=str(name))):
                return name
            case _:
                pass
    return None
