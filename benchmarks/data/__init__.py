"""The images and watermarks that benchmarks measure on."""
