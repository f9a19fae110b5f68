"""Which weights are served: from the Hub, from S3, or mirrored; with code and adapters beside them."""
