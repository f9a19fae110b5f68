"""Asking a deployed endpoint, as `extended-dlc ask` does: what is sent, to what, how, and what an error means.

`content` decides what a text, a file or standard input is; `target` describes the endpoint; `sending` asks it in the
way of its hosting; `reading` finds the text in an answer; `errors` says what SageMaker's refusals mean.
"""
