"""Apache Beam for our commands: the runner, its workers and a progress bar."""
