"""Settings of webhooks: the table ``[webhooks]``."""

import attrs

from linkspan.sdk.values import frozen


def parse_listen(text: str) -> tuple[str, int]:
    """``127.0.0.1:9000``, ``[::1]:9000`` or ``:9000`` as address and port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"'{text}' is not of the form ADDRESS:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - as the text says


@frozen(kw_only=True)
class WebhooksConfig:
    """``[webhooks]``: where requests from elsewhere start pipelines.

    Attributes:
        listen: ``127.0.0.1:9000``; empty means that nothing listens. It speaks plain HTTP: what must be secret on
            its way comes through a proxy that speaks TLS.
    """

    listen: str = attrs.field(default="")

    @listen.validator
    def _check(self, _attribute: object, value: str) -> None:
        if value:
            parse_listen(value)
