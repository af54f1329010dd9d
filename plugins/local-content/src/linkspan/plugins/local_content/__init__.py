"""Blobs by digest in a folder."""
