"""Starts the daemon when a command needs it and nobody answers."""

from linkspan.core.client.address import Address


def start(address: Address) -> None:
    """Start the daemon of an address; returns when it answers.

    Raises:
        LinkspanError: It did not come up; the message says why.
    """
    from linkspan.core.daemon.start import ensure_running

    ensure_running(address.url, config=address.config or None)
