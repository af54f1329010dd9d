"""Settings of the sqlite store."""

from pathlib import Path

import attrs

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class SqliteStateConfig:
    """Where the cluster's state lies.

    Attributes:
        path: The database; by default ``state.db`` in the plugin's own folder. Its disk must not be a
            network file system.
        history: How many revisions a watcher may lag behind before it has to list again.
    """

    path: Path | None = None
    history: int = attrs.field(default=10_000, validator=attrs.validators.ge(100))
