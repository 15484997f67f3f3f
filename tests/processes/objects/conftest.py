from stores import bucket, cache, faulty, proxy, server, store

__all__ = ["bucket", "cache", "faulty", "proxy", "server", "store"]
