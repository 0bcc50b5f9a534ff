"""The error for an image that a model could not restore, whether a server or this process ran the model."""

from __future__ import annotations

import re


class Refused(Exception):
    """Raised if the model does not return an image; the message says why, in one line."""


def reason(details: str) -> str:
    """Extracts the message from TensorFlow's report of a failed graph.

    Such a report looks like "Graph execution error: … assertion failed: [image_bytes[0]: not a JPEG …] [[{{node …}}]]".
    """
    asserted = re.search(r"assertion failed: \[(?:image_bytes\[0\]: )?(.*?)\]\s*(?:\[\[|$)", details, re.DOTALL)
    if asserted:
        return " ".join(asserted[1].split())
    lines = [line for line in details.split("[[")[0].splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
