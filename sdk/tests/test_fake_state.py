from linkspan.sdk.testing.conformance.state import StateConformance
from linkspan.sdk.testing.fakes.state import FakeState


class TestFakeState(StateConformance):
    driver = FakeState
