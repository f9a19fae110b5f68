"""Text generation: the scheduler for continuous batching, sampling, detokenization and streaming."""
