"""Training: the job, its state machine, and the way of its result to the endpoint."""
