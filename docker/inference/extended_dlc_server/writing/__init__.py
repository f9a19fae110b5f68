"""Text that is written token by token: the scheduler whose steps requests share, and what a token becomes."""
