"""What is built: the endpoint, with its role, parts, configuration, scaling, alarms and proofs."""
