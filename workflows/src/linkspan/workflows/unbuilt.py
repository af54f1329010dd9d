"""What belongs to the language but is not carried out yet: refused before a run (LS1016), by name.

This is the only switch. Everything in it is read, typed and checked, and is in the model; whoever
builds one takes its line away.

Names are ``top.KEY``, ``job.KEY``, ``step.KEY``, ``service.KEY``, ``healthcheck.KEY``, ``input.KEY``,
``trigger.NAME``, ``context.NAME``, ``function.NAME``, ``on-failure.pause`` and ``verb.NAME``.
"""

from typing import Final

UNBUILT: Final[frozenset[str]] = frozenset(
    {
        "top.use",
    }
)
