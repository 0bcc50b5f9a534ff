"""The demo is `examples.demo`; this keeps `python -m benchmarks.demo` working."""

from examples.demo import run

if __name__ == "__main__":
    run()
