"""Commands of scripts that must succeed."""

import subprocess
from collections.abc import Mapping

_LIMIT_S = 60.0


def printed(command: str, environment: Mapping[str, str]) -> str:
    """Run a command of a shell; what it printed."""
    done = subprocess.run(
        ["sh", "-c", command],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
