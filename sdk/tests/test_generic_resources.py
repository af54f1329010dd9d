"""What nodes offer by a kind's name, and what tasks get of it."""

import pytest

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.generic_resources import (
    claim_resources,
    free_resources,
    parse_generic_resources,
    resource_environment,
)
from linkspan.sdk.model.service import GenericResource

OFFERED = parse_generic_resources(["gpu=first", "ssd=3", "gpu=second"])


def counted(kind: str, count: int) -> GenericResource:
    return GenericResource(kind=kind, count=count)


def named(kind: str, name: str) -> GenericResource:
    return GenericResource(kind=kind, name=name)


def test_a_kind_is_offered_by_number_or_by_names() -> None:
    assert list(OFFERED) == [named("gpu", "first"), named("gpu", "second"), counted("ssd", 3)]
    assert parse_generic_resources(["a=x", "a=x"]) == (named("a", "x"),)
    assert parse_generic_resources([]) == ()


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["gpu"], "incorrect term gpu, missing '='"),
        (["gpu="], "incorrect term gpu="),
        (["=1"], "incorrect term =1"),
        (["a=b=c"], "incorrect term a=b=c"),
        (["gpu=-1"], "cannot ask for negative resource gpu"),
        (
            ["gpu=1", "gpu=first"],
            "mixed discrete and named resources in expression 'gpu=[1 first]'",
        ),
        (["gpu=1", "gpu=2"], "mixed discrete and named resources"),
    ],
)
def test_what_is_no_resource_is_refused_with_the_reason(texts: list[str], why: str) -> None:
    with pytest.raises(InvalidArgument, match=r"could not parse GenericResource") as refused:
        parse_generic_resources(texts)
    assert why in refused.value.message


def test_tasks_get_the_first_free_names_and_a_part_of_a_number() -> None:
    claimed = claim_resources(OFFERED, [counted("gpu", 1), counted("ssd", 2)])
    assert claimed == (named("gpu", "first"), counted("ssd", 2))
    left = free_resources(OFFERED, claimed)
    assert left == (named("gpu", "second"), counted("ssd", 1))
    assert claim_resources(left, [counted("gpu", 2)]) is None
    assert claim_resources(left, [counted("ssd", 2)]) is None
    assert claim_resources(left, [counted("ssd", 1)]) == (counted("ssd", 1),)
    assert free_resources(left, [*left]) == ()


def test_what_is_reserved_twice_is_needed_twice() -> None:
    assert claim_resources(OFFERED, [counted("ssd", 2), counted("ssd", 2)]) is None
    both = claim_resources(OFFERED, [counted("gpu", 1), counted("gpu", 1)])
    assert both == (named("gpu", "first"), named("gpu", "second"))


def test_a_kind_that_is_not_there_is_never_enough() -> None:
    assert claim_resources(OFFERED, [counted("fpga", 1)]) is None
    assert claim_resources(OFFERED, [counted("fpga", 0)]) is None
    assert claim_resources(OFFERED, [named("gpu", "first")]) is None
    assert claim_resources(OFFERED, [counted("ssd", -1)]) == ()


def test_programs_are_told_what_they_got() -> None:
    assert resource_environment(OFFERED) == (
        "DOCKER_RESOURCE_GPU=first,second",
        "DOCKER_RESOURCE_SSD=3",
    )
