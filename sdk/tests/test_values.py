from typing import Any

import attrs
import pytest

from linkspan.sdk.values import define, frozen


def made(decorate: Any, name: str = "Point", **options: Any) -> Any:
    """A class of every kind of field."""

    class Point:
        x: int
        y: tuple[int, ...] = ()
        note: str = attrs.field(default="", eq=False)
        secret: str = attrs.field(default="", repr=False)
        kind: str = attrs.field(default="", repr=str.upper)
        _inner: int = 0

    Point.__name__ = name
    return decorate(**options)(Point)


VALUES: list[dict[str, Any]] = [
    {"x": 1},
    {"x": 2},
    {"x": 1, "y": (1, 2)},
    {"x": 1, "note": "another"},
    {"x": 1, "secret": "s"},
    {"x": 1, "kind": "k", "inner": 3},
]


@pytest.mark.parametrize(("ours", "theirs"), [(frozen, attrs.frozen), (define, attrs.define)])
def test_values_are_compared_shown_and_hashed_as_attrs_does_it(ours: Any, theirs: Any) -> None:
    mine, other = made(ours), made(theirs)
    for left in VALUES:
        assert repr(mine(**left)) == repr(other(**left))
        for right in VALUES:
            assert (mine(**left) == mine(**right)) is (other(**left) == other(**right))
            assert (mine(**left) != mine(**right)) is (other(**left) != other(**right))
    assert mine(x=1) != other(x=1)
    if theirs is attrs.frozen:
        assert hash(mine(x=1)) == hash(mine(x=1, note="another"))
        assert hash(mine(x=1)) != hash(mine(x=2))
    else:
        with pytest.raises(TypeError, match="unhashable"):
            hash(mine(x=1))


def test_a_class_is_of_its_own_kind_and_a_subclass_another() -> None:
    @frozen
    class Base:
        x: int

    @frozen
    class Sub(Base):
        z: int = 0

    assert Base(1) == Base(1)
    assert Base(1) != Sub(1)
    assert Sub(1, 2) != Sub(1, 3)
    assert repr(Sub(1, 2)) == "Sub(x=1, z=2)"
    assert Base(1) != 1


def test_what_a_class_says_itself_stays() -> None:
    @frozen
    class Loud:
        x: int

        def __repr__(self) -> str:
            return "loud"

    @frozen(eq=False)
    class Same:
        x: int

    assert repr(Loud(1)) == "loud"
    assert Loud(1) == Loud(1)
    assert Same(1) != Same(1)


def test_what_holds_itself_is_shown_with_dots() -> None:
    @define
    class Node:
        inner: list[Any] = attrs.field(factory=list)

    node = Node()
    node.inner.append(node)
    assert repr(node) == "Node(inner=[...])"


def test_a_frozen_one_stays_as_it_is_and_evolves() -> None:
    @frozen
    class Point:
        x: int
        y: int = 0

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]
    assert attrs.evolve(Point(1), y=2) == Point(1, 2)
    assert attrs.asdict(Point(1)) == {"x": 1, "y": 0}


def test_a_field_that_is_compared_by_a_key_is_refused() -> None:
    with pytest.raises(TypeError, match="Point: fields are compared by a key"):

        @frozen
        class Point:
            x: str = attrs.field(eq=str.lower)
