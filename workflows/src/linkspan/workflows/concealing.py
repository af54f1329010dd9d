"""What is secret besides the secrets themselves: what is made of them, and what is called a password.

Both are masked from the moment in which they are known, before anything records or shows them.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from linkspan.sdk.manifest import VerbSetting
from linkspan.workflows.expressions import Scope, evaluate
from linkspan.workflows.expressions.syntax import Expr, Index, Literal, Member, Name, walk
from linkspan.workflows.expressions.types import Json
from linkspan.workflows.masking import MIN_LENGTH, Masks
from linkspan.workflows.model import Text
from linkspan.workflows.values import Value, expressions_in

_WORDS: Final = frozenset({"password", "passwd", "secret", "token", "apikey"})
MIN_WRITTEN: Final = 8
"""Characters of a password that stands in the pipeline's text; a shorter one may be any word."""


def called_secret(name: str) -> bool:
    """Whether a name says that what it has is secret: ``DB_PASSWORD``, ``auth-token``."""
    return not _WORDS.isdisjoint(name.lower().replace("-", "_").split("_"))


def conceal_env(
    masks: Masks,
    written: Mapping[str, Text],
    values: Mapping[str, str],
    scope: Scope,
    known: Collection[str] = (),
) -> frozenset[str]:
    """Mask what is secret among variables.

    Args:
        masks: Get it.
        written: The variables as the pipeline has them.
        values: What they are.
        scope: In which they were evaluated.
        known: Variables, of those they are made of, that hold something secret.

    Returns:
        Those that hold something secret, ``known`` among them.
    """
    found = set(known)
    for name, text in written.items():
        if _conceal_made(masks, text, scope, known):
            found.add(name)
        elif called_secret(name) and len(values[name].strip()) >= MIN_WRITTEN:
            masks.add(name, values[name])
    return frozenset(found)


def conceal_settings(
    masks: Masks,
    manifest: Mapping[str, VerbSetting],
    written: Mapping[str, Value],
    values: Mapping[str, Json],
    scope: Scope,
    known: Collection[str] = (),
) -> None:
    """Mask what is secret among a verb's settings; see ``conceal_env``.

    Raises:
        InvalidArgument: A password is too short to be masked; code ``secret_short``.
    """
    for name, value in values.items():
        setting = manifest[name]
        if setting.takes_secrets and name in written:
            _conceal_made(masks, written[name], scope, known)
        _conceal_called(masks, name, value, MIN_LENGTH if setting.takes_secrets else MIN_WRITTEN)


def _conceal_called(masks: Masks, name: str, value: Json, least: int) -> None:
    """Mask what is called a password; of a place for secrets, the verb's own word is enough."""
    match value:
        case Mapping():
            for key, item in value.items():
                _conceal_called(masks, str(key), item, MIN_WRITTEN)
        case str() if called_secret(name) and (least == MIN_LENGTH or len(value.strip()) >= least):
            masks.add(name, value)
        case _:
            pass


def _conceal_made(masks: Masks, value: Value, scope: Scope, known: Collection[str]) -> bool:
    """Mask each part of a value that is made of secrets; whether there is one.

    What holds a whole secret is masked by that; a piece of one (``from_json(secrets.LOGIN).password``) is not.
    """
    found = False
    for each in expressions_in(value):
        if _reads_secrets(each.tree, known):
            found = True
            for text in _texts(evaluate(each.tree, scope)):
                if len(text.strip()) >= MIN_LENGTH and not masks.holds(text):
                    masks.add(each.source, text, source=each.source)
    return found


def _reads_secrets(tree: Expr, known: Collection[str]) -> bool:
    for node in walk(tree):
        match node:
            case Name(name="secrets"):
                return True
            case (
                Member(base=Name(name="env"), name=name)
                | Index(base=Name(name="env"), key=Literal(value=str(name)))
            ) if name in known:
                return True
            case _:
                pass
    return False


def _texts(value: Json) -> Iterator[str]:
    match value:
        case bool() | None:
            pass
        case str() | int() | float():
            yield str(value)
        case Mapping():
            for item in value.values():
                yield from _texts(item)
        case list() | tuple():
            for item in value:
                yield from _texts(item)
        case _:
            pass
