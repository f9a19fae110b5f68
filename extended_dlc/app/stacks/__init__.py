"""The app's stacks: what `cdk deploy` deploys of settings that were read."""
