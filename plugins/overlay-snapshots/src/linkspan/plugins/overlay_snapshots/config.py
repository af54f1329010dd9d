"""Settings of the snapshots driver ``overlay``."""

import os

import attrs

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class OverlaySnapshotsConfig:
    """Table ``[snapshots.overlay]``.

    Attributes:
        parallel: Layers unpacked (or packed) at once; 0 means one for each processor.
        layer_limit_bytes: Refuse layers that unpack to more.
        entry_limit: Refuse layers with more files and folders.
        ratio_limit: Refuse layers above a gigabyte that expand to more than so many times their size.
        grace_s: Layers and snapshots that nobody knows are kept for so long before gc removes them.
    """

    parallel: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    layer_limit_bytes: int = attrs.field(default=64 << 30, validator=attrs.validators.gt(0))
    entry_limit: int = attrs.field(default=4_000_000, validator=attrs.validators.gt(0))
    ratio_limit: int = attrs.field(default=2000, validator=attrs.validators.gt(0))
    grace_s: float = attrs.field(default=3600.0, validator=attrs.validators.ge(0))

    @property
    def slots(self) -> int:
        """How many jobs that need a whole processor may run at once."""
        return self.parallel or len(os.sched_getaffinity(0))
