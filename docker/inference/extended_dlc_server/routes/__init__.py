"""The interfaces of SageMaker, Hugging Face and OpenAI, and the table that says who reads which."""
