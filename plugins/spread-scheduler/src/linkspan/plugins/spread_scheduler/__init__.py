"""Spreads tasks over nodes, role ``scheduler``."""
