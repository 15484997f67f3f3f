from stores import bucket, cache, faulty, proxy, s3, store

__all__ = ["bucket", "cache", "faulty", "proxy", "s3", "store"]
