"""Workers by tool: the seed names these files (L78-82) but shows none of them."""
