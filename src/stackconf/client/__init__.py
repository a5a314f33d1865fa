"""The SDK over HTTP: the surface of `Stack`, with a server behind it. Needs the extra `client`."""
