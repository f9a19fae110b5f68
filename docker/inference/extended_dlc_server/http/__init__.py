"""HTTP/1.1 over ASGI: connections, requests and responses, and the request log."""
