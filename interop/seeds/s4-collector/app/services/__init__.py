"""Services of the API."""
