"""SageMaker's log groups and namespaces (developer guide, "Amazon SageMaker AI metrics", "Log groups and streams").

`functions/proof.py` runs in Lambda without this package and has its own copy; a test compares the two.
"""

ENDPOINT_LOGS = "/aws/sagemaker/Endpoints"
"""Prefix of an endpoint's log group, before `/` and its name; also the namespace of instance metrics."""

COMPONENT_LOGS = "/aws/sagemaker/InferenceComponents"
"""Prefix of a component's log group, before `/` and its name; also the namespace of metrics of its copies."""

TRAINING_LOGS = "/aws/sagemaker/TrainingJobs"
"""The log group of all training jobs of an account; also the namespace of their metrics."""

REQUEST_METRICS = "AWS/SageMaker"
"""Namespace of request metrics."""
