"""Keyed restoration: no training needed if you have the watermark file.

An image under a known canvas is `x = (1 - t a) y + t a c`, where y is the clean image, a the canvas's alpha, c its
color and t the opacity it was laid on with. `locate` finds where the canvas lies, `fit` how opaque it is, and `invert`
solves for y. All of it is TensorFlow ops on one image, so a SavedModel can hold it.
"""
