"""Watermark canvases: drawn, recovered from images that carry them, and described."""
