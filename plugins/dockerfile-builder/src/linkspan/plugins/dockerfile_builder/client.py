"""What a build asks its client for: in the request, or of one that stays connected."""

from linkspan.plugins.dockerfile_builder.cache_exchange import login_for
from linkspan.sdk.drivers.builder import BuildRequest
from linkspan.sdk.model.image import Credentials


async def secret_of(request: BuildRequest, name: str) -> bytes | None:
    """A secret; None if it was not given."""
    if name in request.secrets or request.client is None:
        return request.secrets.get(name)
    return await request.client.secret(name)


async def login_of(request: BuildRequest, domain: str) -> Credentials:
    """Who we are for a registry; nobody if nothing was given."""
    found = login_for(request.credentials, domain)
    if found != Credentials() or request.client is None:
        return found
    return await request.client.credentials(domain)
