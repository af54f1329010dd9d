"""How subjects add their routes: every handler answers errors in Docker's way."""

from linkspan.plugins.docker_api.deviations import dockers_errors
from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.http import Handler, Request, Response, Router


class DockerRouter:
    """Adds routes of the Engine API to the daemon's router."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Add a route of any method."""
        self._router.add(method, pattern, dockers_errors(handler))


NO_CONTENT = Response(status=204)


async def read_document(request: Request, *, required: bool = True) -> Document:
    """The body as a JSON object. Raises InvalidArgument."""
    return Document(await request.json(required=required))
