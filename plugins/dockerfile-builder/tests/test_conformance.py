"""The kit of role builder."""

import pytest

from linkspan.plugins.dockerfile_builder.driver import DockerfileBuilder
from linkspan.sdk.testing.conformance.builder import BuilderConformance


class TestDockerfileBuilder(BuilderConformance):
    driver = DockerfileBuilder

    @pytest.fixture
    def builder_host(self, workshop):
        """With snapshots, and an engine that runs a few commands."""
        return workshop.host
