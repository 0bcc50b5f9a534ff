"""A run's folder and what lies in it: recipe, checkpoints, validation images, figures."""
