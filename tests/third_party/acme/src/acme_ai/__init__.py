"""Acme's inference service for stackconf. Importing it imports nothing else."""
