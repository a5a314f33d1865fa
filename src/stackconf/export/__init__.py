"""The configuration of a stack written back as a stack file."""
