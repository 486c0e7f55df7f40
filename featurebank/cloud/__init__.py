"""Object storage: addresses, requests that are repeated, reading by ranges, and a lock without a server."""
