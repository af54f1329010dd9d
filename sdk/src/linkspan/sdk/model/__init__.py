"""Values that cross a boundary: frozen attrs, units in the names."""
