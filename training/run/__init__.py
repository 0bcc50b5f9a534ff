"""A run's folder and its contents: recipe, checkpoints, validation images, figures."""
