"""One module per peer. Each runs in the peer's own environment and imports only its packages and ``protocol``."""
