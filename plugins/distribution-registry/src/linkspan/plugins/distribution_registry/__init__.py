"""Client of OCI and Docker registries (OCI distribution-spec 1.1), role ``registry``."""
