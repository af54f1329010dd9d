"""Docker's client of version 20.10, as Debian 12 has it."""

import os
import subprocess
from pathlib import Path


def old_client() -> str:
    """The first client below version 23 that the PATH leads to; else any."""
    for folder in os.environ["PATH"].split(os.pathsep):
        program = Path(folder) / "docker"
        if program.exists():
            said = subprocess.run(
                [program, "--version"], capture_output=True, text=True, check=True
            )
            if int(said.stdout.split()[2].split(".")[0]) < 23:
                return str(program)
    return "docker"
