"""For authors of plugins: fakes of every role and of the host, and the conformance kits."""
