"""The embedded AWS of the rehearsal: one process, one loopback port, that plays AWS to CDK, boto3 and engine."""
