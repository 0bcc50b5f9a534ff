"""The measurements of `training.evaluate` and the report that it writes."""
