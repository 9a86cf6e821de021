"""The response cache: the same question costs once."""
