"""Settings of the registry client."""

from pathlib import Path

import attrs

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class DistributionConfig:
    """How registries are talked to.

    Attributes:
        attempts: How often a request is tried in all, when the registry cannot answer (connection
            lost, 408, 429, 5xx). A blob begins to count anew whenever bytes have arrived.
        retry_delay_s: The wait before the second try; it doubles with each further one.
        retry_after_limit_s: The longest wait that a registry may ask for with ``Retry-After``.
        connect_timeout_s: For a connection, with its TLS handshake.
        idle_timeout_s: The longest silence in the middle of an answer or an upload.
        keep_connections_s: So long after the last request connections are kept for the next one.
        manifest_limit_bytes: The largest manifest or index that is read.
        docker_config: Docker's config file with credentials, used when a caller brings none; without it,
            ``config.json`` in ``$DOCKER_CONFIG`` or ``~/.docker``.
    """

    attempts: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    retry_delay_s: float = attrs.field(default=0.5, validator=attrs.validators.ge(0.0))
    retry_after_limit_s: float = attrs.field(default=60.0, validator=attrs.validators.ge(0.0))
    connect_timeout_s: float = attrs.field(default=10.0, validator=attrs.validators.gt(0.0))
    idle_timeout_s: float = attrs.field(default=30.0, validator=attrs.validators.gt(0.0))
    keep_connections_s: float = attrs.field(default=15.0, validator=attrs.validators.gt(0.0))
    manifest_limit_bytes: int = attrs.field(default=8 << 20, validator=attrs.validators.ge(4 << 20))
    docker_config: Path | None = None
