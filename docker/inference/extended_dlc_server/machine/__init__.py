"""What the container runs on: memory, processors, devices, child processes, the log, the model's threads."""
