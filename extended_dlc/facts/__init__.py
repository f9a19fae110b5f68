"""Published facts and the decisions that follow from them: pure Python, no CDK, no network."""
