"""``python -m linkspan.core.cli``: the command line, as the daemon is started."""

from linkspan.core.cli.main import main

main()
