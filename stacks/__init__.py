"""The app: what `cdk deploy` in this folder deploys."""
