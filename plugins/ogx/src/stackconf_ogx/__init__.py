"""llama-stack and OGX as runtimes of stackconf. Neither is imported until a stack has chosen it."""
