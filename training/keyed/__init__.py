"""Keyed restoration: who has the mark needs no training.

A picture under a known canvas is `x = (1 - t a) y + t a c`: y is the clean picture, a the canvas's alpha, c its colour,
t the opacity that it was laid on with. `locate` finds where the canvas lies, `fit` how opaque it is, `invert` solves
for y. All of it is TensorFlow ops on one picture, so that a SavedModel holds it.
"""
