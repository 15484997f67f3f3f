"""Places of objects: S3 and what speaks like it, web servers, folders. What is remembered of them
is nobody's secret."""
