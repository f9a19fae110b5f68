"""The model: loading, warm-up, batching and inference."""
