"""How a remote server is reached: configuration in `network`, JSON over HTTP in `server`."""
