"""extended-dlc."""
