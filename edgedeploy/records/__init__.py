"""Frozen data records that the other packages exchange, with their JSON forms."""
