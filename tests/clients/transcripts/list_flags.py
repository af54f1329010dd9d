"""Lists the flags of the docker CLI in the PATH into flags.json; see the README beside."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))

from daemon_harness import docker_flags  # noqa: E402 - after the path is set


def main() -> int:
    """List."""
    version = subprocess.run(
        ["docker", "--version"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()[2]
    docker_flags.write(list(docker_flags.ask()), version.rstrip(","), HERE / "flags.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
