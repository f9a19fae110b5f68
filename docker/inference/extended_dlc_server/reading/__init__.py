"""Decoding and validation of requests: bodies, media files, forms, parameters and their limits."""
