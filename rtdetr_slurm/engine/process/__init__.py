"""From the command line to ranks that work, and from how they end to status.json."""
