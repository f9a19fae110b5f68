"""Tables of facts with their sources, and their readers. Pure Python, without the CDK and without a network."""
