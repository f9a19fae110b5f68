"""Requests to a deployed endpoint, for `extended-dlc ask`: body, target, sending, response and errors.

`content` makes a request body of a text, a file or standard input; `target` describes the endpoint; `sending` sends the
request as the endpoint's hosting needs it; `reading` finds the text in a response; `errors` explains AWS's errors.
"""
