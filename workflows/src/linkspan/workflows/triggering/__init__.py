"""What begins runs besides people: time, pushes, requests from elsewhere, changed files."""
