"""The Configuration API over HTTP: one stack, hosted by one process. Needs the extra `server`."""
