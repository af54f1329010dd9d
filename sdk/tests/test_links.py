"""Links between containers: what they name, and how one is taken away."""

import pytest

from linkspan.sdk.errors import NotFound
from linkspan.sdk.links import link_parts, without_link
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
