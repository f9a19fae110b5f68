"""One image and the endpoints that it serves: `extended_dlc/app/stacks/endpoint_stack.py`."""

from extended_dlc.app.stacks.endpoint_stack import EndpointStack

__all__ = ["EndpointStack"]
