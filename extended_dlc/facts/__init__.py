"""What is known: tables with their sources, and their readers. Pure Python, without the CDK and without a network."""
