"""Workers of other apps."""
