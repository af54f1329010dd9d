"""Constraints and preferences of services."""

import pytest

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.model.service import Node
from linkspan.sdk.placement import Constraint, parse_constraint, parse_preference, spreads

NODE = Node(
    id="n1",
    hostname="Alpha",
    role="worker",
    labels={"zone": "East", "a.b/c": "1"},
    address="10.1.2.3",
    engine_labels={"disk": "Fast"},
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("node.id==n1", True),
        ("node.hostname==alpha", True),
        ("node.hostname != alpha", False),
        ("node.role==manager", False),
        ("node.labels.zone==EAST", True),
        ("node.labels.a.b/c==1", True),
        ("node.labels.none==x", False),
        ("node.labels.none!=x", True),
        ("node.platform.os==linux", True),
        ("engine.labels.disk==fast", True),
        ("engine.labels.zone==east", False),
        ("node.ip==10.1.2.3", True),
        ("node.ip==10.1.0.0/16", True),
        ("node.ip!=10.1.2.0/24", False),
        ("node.ip==10.1.2.4", False),
        ("node.ip==nonsense", False),
    ],
)
def test_a_constraint_holds_or_does_not(text: str, holds: bool) -> None:
    assert parse_constraint(text).holds(NODE) is holds


@pytest.mark.parametrize(
    "text",
    ["", "node.id", "node.id=n1", "node.id==", "==x", "node.idd==x", "node.labels.==x", "zone==a"],
)
def test_what_is_no_constraint_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_constraint(text)
    assert caught.value.code == "invalid_constraint"
    assert f"'{text}'" in caught.value.message


def test_a_misspelt_key_gets_a_hint() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_constraint("node.hostnam==a")
    assert caught.value.help == "did you mean node.hostname?"


def test_a_constraint_prints_as_it_is_written() -> None:
    assert str(Constraint("node.role", False, "manager")) == "node.role!=manager"


def test_a_preference_names_a_label_or_spreads_over_nothing() -> None:
    assert parse_preference("spread=node.labels.zone") == "node.labels.zone"
    assert parse_preference("spread=engine.labels.zone") == "engine.labels.zone"
    assert [spreads(key) for key in ("node.labels.zone", "engine.labels.zone", "zone", "")] == [
        True,
        True,
        False,
        False,
    ]
    assert parse_preference("spread=node.id") == "node.id"
    for text in ("binpack=node.labels.zone", "spread", ""):
        with pytest.raises(InvalidArgument) as caught:
            parse_preference(text)
        assert caught.value.code == "invalid_preference"
