"""What `serving.audit` tries on a mark, and the report that it writes."""
