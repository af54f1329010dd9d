"""Settings: ``[builder.dockerfile]``."""

from typing import Final

from linkspan.sdk.values import frozen

GIT_FOLDER: Final = "git-checkouts"
"""Below the builder's state; emptied when the daemon starts."""


@frozen(kw_only=True)
class DockerfileBuilderConfig:
    """What an operator may set.

    Attributes:
        max_context_bytes: A build context larger than this is refused (unpacked size).
        max_context_entries: Files, directories and links of a context.
        max_archive_bytes: What ADD unpacks from one archive.
        max_cache_bytes: After a build, steps that were not used for the longest time are forgotten until no more
            than this is used by steps alone; 0 means no limit.
        max_parallel_steps: RUN, COPY and ADD steps that work at the same time, over all builds.
        max_kept_context_bytes: What is kept of the contexts of BuildKit's clients, so that they send only what has
            changed.
    """

    max_context_bytes: int = 16 << 30
    max_context_entries: int = 1_000_000
    max_archive_bytes: int = 64 << 30
    max_cache_bytes: int = 0
    max_parallel_steps: int = 4
    max_kept_context_bytes: int = 4 << 30
