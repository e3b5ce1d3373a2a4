"""Flower between a server and its sites: a SuperLink and SuperNodes, under TLS, without code sent.

Flower's own programs send a site the program that it is to run, and open an interface for operators
at the port of the sites, by which whoever reaches it may register a key. Here each side runs what
is installed there; messages carry arrays and numbers; of the SuperLink a site reaches its Fleet
interface alone. `flwr` has no stable interface for that, so its version is pinned.
"""
