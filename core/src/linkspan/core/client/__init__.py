"""How commands talk to the daemon: small clients on raw sockets, for a quick start.

Modules here import neither attrs nor trio: importing those takes longer than a short command may.
"""
