"""The models of endpoints: from the Hub, from S3, or mirrored to S3; with user code and adapters."""
