"""The model itself: loaded, warmed up, batched and asked."""
