"""In-memory drivers and host; they pass the same conformance kits as the real ones."""
