"""Drivers of role ``secrets`` that need nothing but this machine."""
