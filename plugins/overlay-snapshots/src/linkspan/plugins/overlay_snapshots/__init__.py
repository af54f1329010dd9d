"""Layers and writable roots on overlayfs."""
