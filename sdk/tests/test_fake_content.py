from linkspan.sdk.testing.conformance.content import ContentConformance
from linkspan.sdk.testing.fakes.content import FakeContent


class TestFakeContent(ContentConformance):
    driver = FakeContent
