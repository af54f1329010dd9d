import importlib
import inspect

import pytest

from linkspan.plugins.docker_api.plugin import ROUTES


@pytest.mark.parametrize("place", ROUTES)
def test_what_a_route_names_is_there_and_takes_a_request(place: str) -> None:
    module, _, name = place.partition(":")
    subject = getattr(importlib.import_module(f"linkspan.plugins.docker_api.{module}"), name)
    for method in ROUTES[place].values():
        handler = getattr(subject, method)
        assert inspect.iscoroutinefunction(handler)
        assert len(inspect.signature(handler).parameters) == 2
