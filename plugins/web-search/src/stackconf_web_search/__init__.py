"""Web search providers for stackconf: Brave Search and Tavily."""
