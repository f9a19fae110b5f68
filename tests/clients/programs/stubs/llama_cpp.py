"""The one name that llama-index's package around llama-cpp-python imports, which is compiled for many minutes."""

Llama = object
