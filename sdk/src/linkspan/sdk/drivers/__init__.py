"""Contracts: one file a role. A driver implements exactly one of them."""
