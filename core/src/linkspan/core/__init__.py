"""The small core: order and truth, never a mechanism."""
