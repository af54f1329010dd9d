"""An OCI registry inside the daemon."""
