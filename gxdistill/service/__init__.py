"""Segmentation as a service: what travels, the server, the client. The only place with HTTP."""
