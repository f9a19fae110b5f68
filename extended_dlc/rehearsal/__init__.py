"""The rehearsal: the real `cdk deploy` on a machine with no AWS account."""
