"""The app's settings: what they may hold, how they are read and checked, and what they ask of `decide`."""
