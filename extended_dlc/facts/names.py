"""Names that SageMaker gives (SageMaker developer guide, "Amazon SageMaker AI metrics", "Log groups and streams").

`functions/proof.py` runs alone in Lambda and has its own; a test compares the two.
"""

ENDPOINT_LOGS = "/aws/sagemaker/Endpoints"
"""Start of an endpoint's log group, before `/` and its name; also the namespace of what is measured on instances."""

COMPONENT_LOGS = "/aws/sagemaker/InferenceComponents"
"""Start of a component's log group, before `/` and its name; also the namespace of what is measured on its copies."""

TRAINING_LOGS = "/aws/sagemaker/TrainingJobs"
"""The log group of all training jobs of an account; also the namespace of what is measured of them."""

REQUEST_METRICS = "AWS/SageMaker"
"""Namespace of what is counted of requests."""
