"""A package whose tasks are found by autodiscovery."""
