"""Daemons for the tests of this folder: one a module, and as many more as a test wants."""

from pathlib import Path

import pytest
from daemon_harness.fixtures import daemon, new_daemon, shared_daemon
from daemon_harness.voyage import copy_pipeline

__all__ = ["daemon", "new_daemon", "shared_daemon", "voyage"]


@pytest.fixture
def voyage(tmp_path: Path) -> Path:
    """The example pipeline with its context, ready to be run."""
    return copy_pipeline(tmp_path)
