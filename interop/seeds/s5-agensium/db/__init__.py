"""Stand-in for the backend's own package: the tables that the tasks use, on SQLite."""
