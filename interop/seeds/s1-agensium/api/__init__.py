"""Stand-in for the FastAPI routes: the functions that the seed shows, without HTTP."""
