"""What is known of the machine that we run on."""

from pathlib import Path


def boot_id() -> str:
    """Differs after every start of the machine (random(4)); blocking."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
