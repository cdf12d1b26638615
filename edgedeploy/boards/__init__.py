"""The host's side of a board: transports, leases, uploads, emulated boards."""
