"""The endpoint construct: its role, Models, EndpointConfig, scaling, alarms and deployment proofs."""
