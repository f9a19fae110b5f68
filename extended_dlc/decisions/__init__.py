"""What follows from what was asked and from what is known: pure functions, without the CDK and without a network."""
