"""The collection platform. S4 names these modules and shows parts of them; see the README."""
