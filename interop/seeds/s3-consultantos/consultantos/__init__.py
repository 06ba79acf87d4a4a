"""The consultancy's backend. S3 shows calls into it, none of its files; these are the modules it names."""
