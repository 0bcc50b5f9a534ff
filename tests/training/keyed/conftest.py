"""Each test of keyed restoration that asks for a mark runs with marks of several kinds."""

import numpy as np
import pytest

from tests.marks import CANVASES


@pytest.fixture(params=CANVASES)
def mark(request):
    """A canvas, uint8 [h, w, 4]."""
    return np.asarray(CANVASES[request.param])
