"""Converts a COCO folder to sharded TFRecords: the plan, the checks, the shards and the Beam job."""
