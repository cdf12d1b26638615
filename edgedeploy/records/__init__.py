"""What travels between the floors: frozen records, with their JSON."""
