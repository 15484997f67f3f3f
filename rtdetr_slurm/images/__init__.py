"""Making container images: built or pulled once, whole or not at all."""
