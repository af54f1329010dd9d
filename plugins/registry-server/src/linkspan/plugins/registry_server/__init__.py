"""An OCI registry inside the daemon (distribution-spec 1.1): pull, push, discovery, on loopback."""
