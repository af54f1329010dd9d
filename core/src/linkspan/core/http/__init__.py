"""The daemon's HTTP server: h11 on trio; its routes come from plugins."""

from linkspan.core.http.limits import Limits, Stopping
from linkspan.core.http.listeners import open_unix_listener, remove_unix_socket
from linkspan.core.http.routing import API_VERSION, MIN_API_VERSION, RouteTable
from linkspan.core.http.server import serve_http

__all__ = [
    "API_VERSION",
    "MIN_API_VERSION",
    "Limits",
    "RouteTable",
    "Stopping",
    "open_unix_listener",
    "remove_unix_socket",
    "serve_http",
]
