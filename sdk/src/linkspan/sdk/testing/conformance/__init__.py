"""One kit a role: subclass it, set ``driver`` and ``config``, and every sentence of the contract is tested."""
