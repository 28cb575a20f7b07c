"""Teacher data: from what a teacher wrote to records (`schemas.records`)."""
