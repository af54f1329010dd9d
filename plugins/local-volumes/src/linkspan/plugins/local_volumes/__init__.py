"""Named volumes in folders."""
