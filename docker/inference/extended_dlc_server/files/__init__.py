"""The model's files: what they must hold, whether they are complete and unchanged, and how they get here."""
