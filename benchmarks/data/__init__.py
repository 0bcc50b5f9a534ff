"""The images and marks that benchmarks measure on."""
