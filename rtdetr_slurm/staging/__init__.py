"""The cache of objects on the shared file system, and what brings them there."""
