"""Settings of the swarm orchestrator."""

import attrs

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class SwarmConfig:
    """``[orchestrator.swarm]``.

    Attributes:
        drain_s: How long a task may finish its connections after it gets no new ones, before it is
            told to stop.
        first_port: Published ports that nobody chose begin here.
        last_port: … and end here.
    """

    drain_s: float = attrs.field(default=0.5, validator=attrs.validators.ge(0))
    first_port: int = attrs.field(default=30000, validator=attrs.validators.in_(range(1, 65536)))
    last_port: int = attrs.field(default=32767, validator=attrs.validators.in_(range(1, 65536)))
