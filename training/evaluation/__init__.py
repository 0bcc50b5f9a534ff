"""What `training.evaluate` measures, and the report that it writes."""
