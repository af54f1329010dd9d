"""A daemon's address, and what is known about it."""

from __future__ import annotations

DEFAULT_CONTEXT = "default"
"""The context that is none: the config's address, or the usual one."""


class Tls:
    """Files for TLS, in PEM.

    Attributes:
        ca: Who signs the daemon's certificate; empty for the system's authorities.
        cert: Ours; empty for none.
        key: Of our certificate.
        verify: Whether the daemon has to prove who it is.
    """

    def __init__(self, ca: str = "", cert: str = "", key: str = "", verify: bool = True) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify


class Address:
    """A daemon's address and what is known about it.

    Attributes:
        url: ``unix:///absolute/path``, ``tcp://host:port`` or ``ssh://user@host``.
        config: The config file that was named, for starting the daemon; empty for the usual ones.
        autostart: Whether the daemon may be started when none answers.
        tls: For TCP; None for no encryption.
        context: The context that it comes from; empty for none.
    """

    def __init__(
        self,
        url: str,
        config: str = "",
        autostart: bool = False,
        tls: Tls | None = None,
        context: str = "",
    ) -> None:
        self.url = url
        self.config = config
        self.autostart = autostart
        self.tls = tls
        self.context = context

    def as_it_is(self) -> Address:
        """The same daemon, not to be started."""
        return Address(self.url, self.config, False, self.tls, self.context)

    @property
    def path(self) -> str:
        """The socket's path; empty if the address is of another kind."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix:///") else ""
