"""Spreads tasks over nodes."""
