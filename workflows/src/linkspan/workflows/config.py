"""``[workflows]`` of the daemon's config: how long runs are kept, and what strangers' pipelines may do."""

import attrs

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class WorkflowsConfig:
    """``[workflows]``: the runs of pipelines.

    Attributes:
        keep_runs: So many runs that have ended stay with their logs; the oldest beyond them go. One that is
            under way or waits for a person never goes.
        keep_for_s: Those in which nothing has happened for so long go, too; ``"0"`` means never.
        keep_sources: Of so many runs that succeeded the sources stay for a rerun; those of the others always do.
        untrusted_verbs: Verbs that a pipeline run with ``--untrusted`` may use, besides scripts; their plugins
            must be safe in the hands of a stranger.
    """

    keep_runs: int = attrs.field(default=100, validator=attrs.validators.ge(0))
    keep_for_s: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    keep_sources: int = attrs.field(default=10, validator=attrs.validators.ge(0))
    untrusted_verbs: tuple[str, ...] = ()
