"""HTTP/1.1 over ASGI: connections, one request and its response, and the log of requests."""
