"""Files, local or in object storage."""
