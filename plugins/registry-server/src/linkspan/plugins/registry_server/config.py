"""Settings of the registry server."""

import ipaddress

import attrs

from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.values import frozen


def parse_listen(text: str) -> tuple[str, int]:
    """``127.0.0.1:5000`` → host and port; only loopback, since the registry has neither TLS nor users.

    Raises:
        InvalidArgument: Not ``HOST:PORT``, or an address that others can reach.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(
            f'must be HOST:PORT such as "127.0.0.1:5000", found "{text}"', code="listen_invalid"
        )
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    address = "127.0.0.1" if bare == "localhost" else bare
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InvalidArgument(
            f'must be a loopback address such as "127.0.0.1:5000", found "{text}": this registry has '
            "neither TLS nor users, so others must not reach it",
            code="listen_not_loopback",
        )
    return address, int(port)


@frozen(kw_only=True)
class RegistryServerConfig:
    """A registry of this machine's own, plain HTTP on loopback only.

    Attributes:
        listen: Where, such as ``127.0.0.1:5000``; empty means that it is off.
        delete: Whether manifests and blobs may be deleted over the API.
        manifest_limit_bytes: The largest manifest that is accepted.
        upload_expiry_s: An upload without news for this long is forgotten.
        head_timeout_s: How long a client may take for the head of a request.
        idle_timeout_s: How long a connection may rest between requests, and a body or an answer stall.
        drain_s: How long requests in flight may take to end when the daemon stops.
        max_connections: More clients than this are told to come back (503).
    """

    listen: str = attrs.field(default="")
    delete: bool = True
    manifest_limit_bytes: int = attrs.field(default=8 << 20, validator=attrs.validators.ge(4 << 20))
    upload_expiry_s: float = attrs.field(default=3600.0, validator=attrs.validators.gt(0.0))
    head_timeout_s: float = attrs.field(default=10.0, validator=attrs.validators.gt(0.0))
    idle_timeout_s: float = attrs.field(default=60.0, validator=attrs.validators.gt(0.0))
    drain_s: float = attrs.field(default=10.0, validator=attrs.validators.ge(0.0))
    max_connections: int = attrs.field(default=256, validator=attrs.validators.ge(1))

    @listen.validator
    def _check_listen(self, _attribute: object, value: str) -> None:
        if value:
            parse_listen(value)
