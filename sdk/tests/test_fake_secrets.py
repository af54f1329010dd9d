"""The fake passes the kit of its role."""

import pytest

from linkspan.sdk.testing.conformance.secrets import SecretsConformance
from linkspan.sdk.testing.fakes.secrets import FakeSecrets, FakeSecretsConfig


class TestFakeSecrets(SecretsConformance):
    driver = FakeSecrets

    @pytest.fixture
    def config(self):
        return FakeSecretsConfig(values={})
