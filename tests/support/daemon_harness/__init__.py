"""A real daemon of a test's own: its command line, its faults, what it leaves behind."""
