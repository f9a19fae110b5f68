"""The one name that llama-index's package imports of llama-cpp-python, which compiles for many minutes."""

Llama = object
