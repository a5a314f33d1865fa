"""The operator's stack file: safe YAML, environment references, positions."""
