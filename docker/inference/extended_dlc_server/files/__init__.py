"""The model's files: downloads them, verifies them and checks that they are a complete model."""
