"""How stable a contract is."""

import enum
from collections.abc import Callable
from typing import Any, TypeVar

from linkspan.sdk.values import frozen

C = TypeVar("C", bound=type[Any])


class Stage(enum.Enum):
    """Alpha must be switched on; beta changes with a migration note; ga only in a new version."""

    ALPHA = "alpha"
    BETA = "beta"
    GA = "ga"


@frozen(kw_only=True)
class ContractInfo:
    """Role, major version and stage of a contract."""

    role: str
    version: int
    stage: Stage
    since: str


def contract(*, role: str, version: int, stage: Stage, since: str) -> Callable[[C], C]:
    """Mark an ABC as the contract of a role."""

    def mark(cls: C) -> C:
        cls.contract = ContractInfo(role=role, version=version, stage=stage, since=since)
        return cls

    return mark
