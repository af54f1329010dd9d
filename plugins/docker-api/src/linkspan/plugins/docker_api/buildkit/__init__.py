"""What BuildKit's clients speak: gRPC over HTTP/2 on a connection that was taken over (RFC 9113).

Loaded by the first request for it.
"""
