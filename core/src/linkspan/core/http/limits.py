"""What clients of the HTTP server may do, and how it ends."""

import trio

from linkspan.sdk.values import frozen


@frozen(kw_only=True)
class Limits:
    """How much and how long a client may.

    Attributes:
        head_bytes: Request line and headers. Go's server, so dockerd's, takes 1 MiB; ``X-Registry-Config``
            with many registries needs more than h11's 16 KiB.
        head_timeout_s: From the first byte of a request to the end of its headers.
        idle_timeout_s: Between two requests of a connection.
        body_idle_timeout_s: Between two pieces of a request's body.
        send_timeout_s: For a whole answer to be taken; streams may be read as slowly as one likes.
        unread_body_bytes: A body that no handler read is thrown away up to this size so that the
            connection can go on; beyond it is closed.
        linger_s: How long a closing connection is emptied, so that the client sees the answer and not a
            reset.
        connections: At once; one more is answered 503.
    """

    head_bytes: int = 256 << 10
    head_timeout_s: float = 60.0
    idle_timeout_s: float = 600.0
    body_idle_timeout_s: float = 300.0
    send_timeout_s: float = 120.0
    unread_body_bytes: int = 256 << 10
    linger_s: float = 2.0
    connections: int = 4096


@frozen
class Stopping:
    """How serving ends before it is cancelled.

    Attributes:
        begun: When it is set, nobody new is let in, what would not end (``Stream.at_stop``, taken-over
            connections) is ended, and idle connections are closed.
        grace_s: How long the other requests may take from then on.
    """

    begun: trio.Event
    grace_s: float
