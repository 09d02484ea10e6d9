"""What is seen can be told apart: by colour-blind eyes, on white and on black; and names stay text."""

from html.parser import HTMLParser
from itertools import combinations, product

import numpy as np
import pytest

import evlib
from evlib.inspection import annotator, browser
from evlib.inspection.widget import html_facts, html_table, named
from evlib.signals.synthetic import make_templates
from evlib.signals.text import one_line

# Machado, Oliveira and Fernandes (2009): what linear RGB becomes for eyes without one kind of cones.
EYES = {
    "all cones": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# JupyterLab's paper in its light and dark theme.
PAPERS = ("#ffffff", "#111111")


def linear(colour):
    value = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(colour, eyes):
    """CIELAB coordinates of a colour as these eyes see it."""
    t = TO_XYZ @ np.clip(np.array(EYES[eyes]) @ linear(colour), 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one, other):
    low, high = sorted(linear(colour) @ TO_XYZ[1] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


PALETTES = {
    "outcomes": (browser.COLOURS, browser.SHAPES),
    "annotations": (annotator.ANNOTATION_COLOURS, annotator.SHAPES),
    "changes": (annotator.CHANGE_COLOURS, annotator.SHAPES),
}


@pytest.mark.parametrize("eyes", EYES)
def test_outcomes_differ_in_colour_for_all_eyes(eyes):
    judged = [browser.COLOURS[name] for name in ("hit", "miss", "false_alarm")]
    for colours in (judged, annotator.CHANGE_COLOURS.values()):
        for one, other in combinations(colours, 2):
            assert np.linalg.norm(lab(one, eyes) - lab(other, eyes)) > 22, (one, other)
    # What matters most: green and red of earlier versions differed by 7, red and orange by 30.
    assert min(np.linalg.norm(lab(a, eyes) - lab(b, eyes)) for a, b in combinations(judged, 2)) > 35


@pytest.mark.parametrize("palette", PALETTES)
def test_outcomes_differ_in_shape_and_are_seen_on_white_and_on_black(palette):
    colours, shapes = PALETTES[palette]
    assert len({shapes[name] for name in colours}) == len(colours)
    for colour, paper in product(colours.values(), PAPERS):
        assert contrast(colour, paper) >= 3, (colour, paper)


# ---- Names

NAMES = (
    "<b>bold</b>",
    "<img src=x onerror=alert(1)>",
    "&lt;",
    "$x_{$",
    "two\nlines",
    "tab\tbed",
    "long " + "x" * 300,
    "צעד",
    "\u202egnihton",
    "_hidden",
    "all types",
    "best match",
    "(all types)",
    "none",
    "default",
    "miss",
    "100 %",
    "back\\slash",
)


class Tags(HTMLParser):
    """The tags and the text of some HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert {name for name, _ in attributes} <= {"class", "title", "tabindex", "role", "aria-label", "scope"}

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", NAMES)
def test_tables_hold_names_as_text(name):
    for make, plain in ((lambda n: html_table(["", n], [[n, n]]), "a"), (lambda n: html_facts({"type": n}), "a")):
        shown = Tags(make(name))
        assert shown.tags == Tags(make(plain)).tags
        assert one_line(name) in shown.text
    assert "\n" not in one_line(name) and len(one_line(name)) <= 82 and "\u202e" not in one_line(name)
    assert named([name]) == [(one_line(name), name)]


KINDS = ("<img src=x onerror=alert(1)>", "$x_{$", "צעד", "long " + "x" * 300, "_hidden", "all types", "default")


@pytest.fixture(scope="module")
def simulation():
    """Events whose kinds and channels have hostile names, and a detector that finds them."""
    recording, events = evlib.make_recording(make_templates(len(KINDS), 2, seed=2), 30.0, snr=12.0, seed=1)
    recording = evlib.Recording(recording.read(), 2000.0, channels=("two\nlines", KINDS[1]), units="<i>", name=KINDS[0])
    events = evlib.Events.from_seconds(events.onset_s, events.type, 2000.0, KINDS)
    detector = evlib.fit([(recording, events)], method="matched_filter", progress=False)
    return recording, events, detector


@pytest.fixture(scope="module")
def widgets(simulation, tmp_path_factory):
    recording, events, detector = simulation
    found = evlib.detect(detector, recording)
    report = evlib.compare(events, found, 0.005)
    log = tmp_path_factory.mktemp("log") / "<b>log.jsonl"
    return {
        "browser": evlib.EventBrowser(recording, events, found, detector),
        "explorer": evlib.ThresholdExplorer(detector, recording, events),
        "templates": evlib.TemplateView(detector, recording, events),
        "timing": evlib.TimingView(report, detector, recording),
        "annotator": evlib.Annotator(recording, detector, log=log),
    }


def html_in(widget):
    """All HTML that a widget shows."""
    own = [widget.value] if type(widget).__name__ == "HTML" else []
    return own + [html for child in getattr(widget, "children", ()) for html in html_in(child)]


OURS = {"b", "br", "details", "div", "kbd", "span", "summary", "table", "td", "th", "tr"}


@pytest.mark.parametrize("widget", ["browser", "explorer", "templates", "timing", "annotator"])
def test_every_widget_shows_any_name_as_text(widgets, widget):
    one = widgets[widget]
    for name in KINDS[:2]:
        if hasattr(one, "types"):
            one.types.list.value = name
        else:
            one.next()
        html = html_in(one)
        assert all(set(Tags(part).tags) <= OURS for part in html)
    assert one.png().startswith(b"\x89PNG")
    if widget == "explorer":
        assert any("$x_{$" in part for part in html), "the name is there, letter by letter"


@pytest.mark.parametrize("name", ["all types", "default", "צעד"])
def test_kinds_with_the_names_of_choices_can_be_chosen(widgets, simulation, name):
    recording, events, detector = simulation
    timing, note, browser = widgets["timing"], widgets["annotator"], widgets["browser"]
    everything = len(timing.set(type=None).errors())
    assert 0 < len(timing.set(type=name).errors()) == len(timing.errors(name)) < everything == len(timing.errors(None))
    assert widgets["explorer"].choose(name).name == name
    browser.filter(types=[name])
    assert set(browser.shown["type"]) == {name}
    assert browser._rule == detector.refractory_s
    note.kind.value = name
    assert note._type() == name
    note.kind.index = 0
    assert note._type() is None
    timing.types.list.index = 0
    timing.types.step(1)
    assert timing.types.value == KINDS[0]


def test_a_kind_called_best_match_can_be_added(tmp_path):
    recording = evlib.Recording(np.zeros((20_000, 1), np.float32), 2000.0)
    note = evlib.Annotator(recording, names=["best match", "(best match)"], log=tmp_path / "log.jsonl")
    for name in ("best match", "(best match)"):
        note.kind.value = name
        note.signal.cursor_s = 1.25
        note.signal.pressed = {"key": "Enter", "shift": True, "count": len(note.annotations)}
        assert note.annotations[note.signal.selected].type == name


@pytest.mark.slow
def test_two_hundred_kinds_fit_into_every_figure():
    names = [f"kind number {k}" for k in range(200)]
    events = evlib.Events.from_seconds(np.arange(400) * 0.05 + 0.01, np.arange(400) % 200, 2000.0, names)
    timing = evlib.TimingView(evlib.compare(events, events))
    assert max(timing.figure().get_size_inches()) < 13
    figure = timing.set(view="between types").figure()
    assert max(figure.get_size_inches()) < 13 and len(figure.axes[0].texts) == 0
