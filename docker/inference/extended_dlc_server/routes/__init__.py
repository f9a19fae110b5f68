"""The APIs of SageMaker, Hugging Face and OpenAI, and the table of routes."""
