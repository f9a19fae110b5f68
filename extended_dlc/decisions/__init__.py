"""Decisions from options and facts, and their refusals: pure functions, without the CDK and without a network."""
