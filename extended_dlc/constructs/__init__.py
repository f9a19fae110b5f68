"""Shared parts of the constructs: network, service principals, archives, builds, and the rules of a platform."""
