"""The llama.cpp server as a provider for stackconf."""
