"""What is said about a picture that a model could not restore, whether a server ran the model or this process did."""

from __future__ import annotations

import re


class Refused(Exception):
    """The model answered, but not with a picture; the message says why, in one line."""


def reason(details: str) -> str:
    """The sentence in TensorFlow's report of a failed graph.

    It looks like "Graph execution error: … assertion failed: [image_bytes[0]: not a JPEG …] [[{{node …}}]]".
    """
    asserted = re.search(r"assertion failed: \[(?:image_bytes\[0\]: )?(.*?)\]\s*(?:\[\[|$)", details, re.DOTALL)
    if asserted:
        return " ".join(asserted[1].split())
    lines = [line for line in details.split("[[")[0].splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason given"
