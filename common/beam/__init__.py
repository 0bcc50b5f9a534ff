"""Apache Beam as our commands use it: the runner, its workers and its progress."""
