"""Settings of the content driver ``local``."""

import attrs

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class LocalContentConfig:
    """Table ``[content.local]``.

    Attributes:
        ingest_expiry_s: Unfinished downloads that nobody touched for so long are removed.
        grace_s: Blobs that nobody knows are kept for so long, since their image may not be recorded yet.
    """

    ingest_expiry_s: float = attrs.field(default=86400.0, validator=attrs.validators.ge(0))
    grace_s: float = attrs.field(default=3600.0, validator=attrs.validators.ge(0))
