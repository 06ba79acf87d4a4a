"""Stand-in for the backend's services: object storage is a folder."""
