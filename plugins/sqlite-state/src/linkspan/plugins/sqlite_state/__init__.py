"""The cluster's key-value store in one sqlite file, role ``state``."""
