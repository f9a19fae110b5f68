"""The stand-in for a DLC that cannot be pulled: an image of the same PyPI parts on this machine's Debian."""
