"""What one cluster is like: the site profile, where it is found, and what it limits."""
