"""Links between containers: what they name, and how one is taken away."""

import pytest

from linkspan.sdk.errors import NotFound
from linkspan.sdk.links import link_parts, links_of, with_renamed, without_link
from linkspan.sdk.model.container import ContainerSpec
from linkspan.sdk.model.network import EndpointSpec


@pytest.mark.parametrize(
    ("link", "parts"),
    [
        ("db", ("db", "db")),
        ("/db", ("db", "db")),
        ("db:data", ("db", "data")),
        ("/db:/web/data", ("db", "data")),
    ],
)
def test_a_link_names_a_container_and_what_it_is_called(link: str, parts: tuple[str, str]) -> None:
    assert link_parts(link) == parts


def test_a_link_is_taken_away_by_its_name_alone() -> None:
    networks = {"bridge": EndpointSpec(links=("db:data", "db:other")), "mine": EndpointSpec()}
    spec = without_link(ContainerSpec(image="app", networks=networks), "data")
    assert spec.networks == {"bridge": EndpointSpec(links=("db:other",)), "mine": EndpointSpec()}
    with pytest.raises(NotFound):
        without_link(spec, "data")


def test_links_elsewhere_than_on_the_default_network_are_no_links_to_take_away() -> None:
    spec = ContainerSpec(image="app", networks={"mine": EndpointSpec(links=("db:data",))})
    assert links_of(spec) == ()
    with pytest.raises(NotFound):
        without_link(spec, "data")
    assert with_renamed(spec, "db", "new") is spec


def test_links_follow_a_container_to_its_new_name() -> None:
    networks = {"bridge": EndpointSpec(links=("db", "/db:/web/data", "mail:db"))}
    spec = with_renamed(ContainerSpec(image="app", networks=networks), "db", "new")
    assert links_of(spec) == ("new:db", "new:data", "mail:db")
    assert with_renamed(spec, "db", "other") is spec
