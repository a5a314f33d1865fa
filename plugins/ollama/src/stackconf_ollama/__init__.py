"""The Ollama provider for stackconf."""
