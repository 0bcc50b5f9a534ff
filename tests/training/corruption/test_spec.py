"""Corruption specs parse, round-trip, and point at what is wrong."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.command_line import UserError
from training.corruption import spec
from training.corruption.spec import Chain, Choice, Clean, Gaussian, Impulse, Jpeg, Range, Text, Watermark

DOCS = Path(__file__).parents[3] / "docs" / "training.md"


@pytest.mark.parametrize(
    "text",
    [
        "clean",
        "watermark:canvas=a.png,opacity=0.3..0.97",
        "watermark:canvas=a b.png;dir/*.png,opacity=1,scale=0.5..1.5,rotate=-30..30,tint=0..0.2,blend=screen,"
        "blur=0..1.5,warp=0..2,layout=tile",
        "text:occupancy=0..25,size=20,color=ff0080,opacity=0.7,alphabet=latin+digits+cjk,font=a%2Cb.ttf",
        "gaussian:stddev=0..25",
        "poisson:peak=30",
        "impulse:occupancy=10",
        "jpeg:quality=80,chroma=420",
        "watermark:canvas=a.png+jpeg+gaussian:stddev=3",
        "clean@0.25|watermark:canvas=logo@2x.png+jpeg@0.75".replace("@2x", "%402x"),
    ],
)
def test_a_spec_is_written_as_it_was_read(text):
    assert spec.to_string(spec.parse(text)) == text


def test_what_a_spec_says_is_what_is_read():
    assert spec.parse("watermark:canvas=a.png") == Watermark(("a.png",), Range(0.8, 1.0))
    assert spec.parse("text:alphabet=latin+cjk+jpeg") == Chain((Text(alphabet=("latin", "cjk")), Jpeg()))
    assert spec.parse("clean|gaussian+jpeg|impulse@0.5") == Choice(
        (Clean(), Chain((Gaussian(), Jpeg())), Impulse()), (0.25, 0.25, 0.5)
    )
    # An @ within a file's name is no weight, and a + within it joins nothing.
    assert spec.parse("watermark:canvas=logo@2x.png").canvas == ("logo@2x.png",)
    assert spec.parse("watermark:canvas=c++.png").canvas == ("c++.png",)


@pytest.mark.parametrize(
    "older, today",
    [
        ("text,0,50", Text(occupancy=Range(0, 50))),
        ("gaussian,0,50", Gaussian(Range(0, 50))),
        ("gaussian,25,25", Gaussian(Range(25, 25))),
        ("impulse,0,95", Impulse(Range(0, 95))),
        ("clean", Clean()),
    ],
)
def test_the_older_positional_forms_mean_what_they_meant(older, today):
    assert spec.parse(older) == today


def test_every_spec_in_the_documentation_parses_and_round_trips():
    quoted = re.findall(r"`((?:" + "|".join(spec.KINDS) + r")[:,+|][^`]*)`", DOCS.read_text())
    assert len(quoted) >= 8
    for text in (cell.replace("\\|", "|") for cell in quoted):  # a table's cell cannot hold a bare |
        assert spec.parse(spec.to_string(spec.parse(text))) == spec.parse(text), text


def test_the_documentation_has_every_parameter_with_its_default():
    page = DOCS.read_text()
    for name, kind in spec.KINDS.items():
        for field in dataclasses.fields(kind):
            (row,) = re.findall(rf"^\| `{name}` \| `{field.name}` \|.*$", page, re.MULTILINE)
            assert field.metadata["accepts"] in row and field.metadata["meaning"] in row, row


@pytest.mark.parametrize(
    "text, pointer",
    [
        ("", "''"),
        ("watermrk:canvas=a.png", "'watermrk'"),
        ("watermark", "needs canvas"),
        ("watermark:canvas=", "path is empty"),
        ("watermark:canvas=a.png;", "path is empty"),
        ("watermark:canvas=a.png,opacity=high", "'high'"),
        ("watermark:canvas=a.png,opacity=0.9..0.3", "0.9..0.3"),
        ("watermark:canvas=a.png,opacity=0..2", "0..2"),
        ("watermark:canvas=a.png,opacity=nan", "nan"),
        ("watermark:canvas=a.png,scale=0", "0.05..8"),
        ("watermark:canvas=a.png,blend=overlay", "'overlay'"),
        ("watermark:canvas=a.png,colour=red", "colour=red"),
        ("watermark:canvas=a.png,canvas=b.png", "twice"),
        ("text:color=red", "six hexadecimal digits"),
        ("text:alphabet=greek", "'greek'"),
        ("clean:opacity=1", "opacity=1"),
        ("gaussian,5", "'gaussian,5'"),
        ("jpeg,1,2", "'jpeg,1,2'"),
        ("gaussian,a,b", "'a..b'"),
        ("clean@0.5", "add up to 0.5"),
        ("clean@0.5|jpeg@0.6", "add up to 1.1"),
        ("clean@1|jpeg", "leave nothing"),
        ("clean@-1|jpeg", "above 0"),
        ("clean+", "'clean+'"),
    ],
)
def test_an_error_points_at_the_offending_part(text, pointer):
    with pytest.raises(UserError, match="^spec ") as caught:
        spec.parse(text)
    assert pointer in str(caught.value)


_PIECES = st.sampled_from(
    [
        "watermark",
        "text",
        "jpeg",
        "clean",
        "gaussian",
        "canvas=a.png",
        "opacity=",
        "0..1",
        "1e3",
        "nan",
        "-",
        "..",
        "%zz",
    ]
    + list(":,+|@=;%")
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.lists(_PIECES, max_size=12).map("".join), st.text(max_size=40)))
def test_any_text_parses_or_raises_our_own_error(text):
    try:
        parsed = spec.parse(text)
    except UserError:
        return
    assert spec.parse(spec.to_string(parsed)) == parsed


_NUMBERS = st.floats(0.0, 1.0, allow_nan=False)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=3),
    st.tuples(_NUMBERS, _NUMBERS).map(sorted),
    st.booleans(),
)
def test_any_path_and_any_range_survive_writing_and_reading(paths, bounds, chained):
    one = Watermark(tuple(paths), opacity=Range(*bounds))
    written = Chain((one, Jpeg())) if chained else one
    assert spec.parse(spec.to_string(written)) == written
