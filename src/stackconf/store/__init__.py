"""Where revisions, attempts and status are kept."""
