"""The vLLM providers for stackconf."""
