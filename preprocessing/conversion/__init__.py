"""A COCO folder into sharded TFRecords: the plan, the checks, the shards and the Beam job."""
