"""How subjects add their routes: every handler answers errors in Docker's way."""

from linkspan.plugins.docker_api.deviations import dockers_errors
from linkspan.plugins.docker_api.document import Document
from linkspan.sdk.errors import InvalidArgument
from linkspan.sdk.http import JSON, Handler, Request, Response, Router


class DockerRouter:
    """Adds routes of the Engine API to the daemon's router."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Add a route of any method."""
        self._router.add(method, pattern, dockers_errors(handler))


NO_CONTENT = Response(status=204)


def plain_flag(request: Request, name: str) -> bool:
    """A parameter that is yes or no, where Docker takes nothing else. Raises InvalidArgument."""
    text = request.query.get(name, "")
    if text.lower() not in ("", "1", "t", "true", "0", "f", "false"):
        raise InvalidArgument(f"invalid value for {name}: {text}", help="write true or false")
    return text.lower() in ("1", "t", "true")


async def read_document(request: Request, *, required: bool = True) -> Document:
    """The body as a JSON object.

    A body without a type is taken, though Docker refuses it; one of another type is not, so that no form of a
    web page can be one.

    Raises:
        InvalidArgument: Of another type, no JSON object, or empty though required.
    """
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind not in ("", JSON):
        raise InvalidArgument(
            f"unsupported Content-Type header ({kind}): must be '{JSON}'", code="content_type"
        )
    return Document(await request.json(required=required))
