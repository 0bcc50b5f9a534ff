"""When Noise2Noise cannot work, and what is said then."""

import pytest

from preprocessing.marks import noise2noise


@pytest.mark.parametrize(
    ("coverage", "mask_target", "warned"),
    [
        (0.0, False, False),
        (0.5, False, False),
        (0.51, False, True),
        (0.6, True, False),
        (0.95, True, True),
        (1, True, True),
    ],
)
def test_a_warning_names_the_coverage_and_the_way_out(coverage, mask_target, warned):
    text = noise2noise.warning(coverage, mask_target)
    assert (text is not None) == warned
    if warned:
        assert f"{100 * coverage:.3g} %" in text and "--config.target=clean" in text and "\n" not in text


def test_the_median_of_l1_is_the_mark_just_where_it_is_warned_of():
    """The claim behind the threshold, by simulation: L1's answer is the median over targets."""
    numpy = pytest.importorskip("numpy")
    rng = numpy.random.default_rng(0)
    for coverage in (0.4, 0.6):
        seen = numpy.where(rng.random(10_000) < coverage, 255.0, 80.0)
        assert (numpy.median(seen) == 255.0) == (noise2noise.warning(coverage, False) is not None)


def test_what_is_no_share_is_refused():
    with pytest.raises(ValueError, match="not within"):
        noise2noise.warning(26.6, False)
