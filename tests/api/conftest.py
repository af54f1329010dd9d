"""A daemon for the stock docker CLI: one a module."""

from daemon_harness.fixtures import daemon, shared_daemon

__all__ = ["daemon", "shared_daemon"]
