"""The container's resources: memory, CPUs, devices, child processes, the log, and the model's threads."""
