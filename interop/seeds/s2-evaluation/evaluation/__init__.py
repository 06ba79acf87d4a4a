"""The evaluation service. S2 shows calls into it, none of its files."""
