"""What all widgets share: a static figure, a line of messages, buttons whose errors are shown, lists to step through.

A front end that can draw a widget does so. Where none can (an executed notebook that is not trusted, a page on a code
host, an export), the same output shows ``figure()``: the state in which the cell was run.
"""

import base64
import io
from collections.abc import Callable
from html import escape
from pathlib import Path

import anywidget
import ipywidgets as w
import traitlets

from ..signals.atomic import replace_file
from ..signals.errors import EvlibError, require_known
from ..signals.text import one_line

# Dots per inch of figures on a screen.
SCREEN_DPI = 120
LABEL = {"description_width": "initial"}
WRAP = w.Layout(flex_flow="row wrap", align_items="center")
HERE = Path(__file__).parent
# Pixels of the page per inch of a picture, pixels that a panel needs, and how wide a page is until it says so.
PAGE_DPI, PANEL_PX, PAGE_PX = 90, 250, 1000


def synced(trait):
    """A trait that the front end shares."""
    return trait.tag(sync=True)


# The value of an option that is no name, such as "(all types)": a kind may have any name, and None is "nothing chosen".
NO_NAME = object()


def named(names) -> list:
    """Options of a list: names as text, and what they stand for."""
    return [(one_line(name), name) for name in names]


class Message(anywidget.AnyWidget):
    """A line of plain text, ``value``, that screen readers read out; ``warning`` sets it off.

    It helps the widget around it, too: ``picture`` is the text alternative of its picture, ``width_px`` how wide the
    page shows it, and controls of ipywidgets get the names and states that they lack.
    """

    _esm = HERE / "widget.js"
    _css = HERE / "widget.css"

    value = synced(traitlets.Unicode(""))
    warning = synced(traitlets.Bool(False))
    picture = synced(traitlets.Unicode(""))
    width_px = synced(traitlets.Int(PAGE_PX))


class Widget(w.VBox):
    """A column of controls with a static figure of their state, and ``message``, a line of plain text.

    Subclasses set ``children`` and implement :meth:`figure`.
    """

    def __init__(self):
        self.message = Message()
        super().__init__(layout=w.Layout(width="100%"))
        self.add_class("evlib-widget")

    def figure(self):
        """The present state as a matplotlib Figure, made without pyplot: it is shown once, and no figure stays open."""
        raise NotImplementedError

    def png(self) -> bytes:
        """The figure as PNG."""
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=SCREEN_DPI)
        return buffer.getvalue()

    def save(self, path: str | Path, dpi: float = 150) -> None:
        """Write the figure; the ending of ``path`` sets the format, and a file is replaced by a whole one only."""
        with replace_file(path) as temporary:
            self.figure().savefig(temporary, dpi=dpi)

    def say(self, text: str, warning: bool = False) -> None:
        """Show a line of plain text; an empty one removes it."""
        with self.message.hold_sync():
            self.message.value, self.message.warning = text, warning

    def attempt(self, act: Callable, *arguments) -> None:
        """Call ``act``; an error of evlib or of a file becomes a message: what a button raises is shown nowhere."""
        try:
            act(*arguments)
        except (EvlibError, OSError) as error:
            self.say(str(error), warning=True)

    def button(self, caption: str, act: Callable, **options) -> w.Button:
        """A button that calls ``act``."""
        button = w.Button(description=caption, **{"layout": w.Layout(width="auto")} | options)
        button.on_click(lambda _: self.attempt(act))
        return button

    def __repr__(self):
        return f"{type(self).__name__}: a widget; its static figure shows the state in which this cell was run"

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        return {**bundle, "image/png": base64.b64encode(self.png()).decode()}


class Stepper(w.HBox):
    """A drop-down list between two buttons, to the option before and the one after; options are (label, value)."""

    def __init__(self, options, description: str = ""):
        self.list = w.Dropdown(options=options, description=description, style=LABEL, layout=w.Layout(width="260px"))
        # Characters, not icons: these come from a font that may be missing.
        back, forth = (
            w.Button(description=sign, tooltip=f"{where} {description}", layout=w.Layout(width="36px"))
            for sign, where in (("◀", "previous"), ("▶", "next"))
        )
        back.on_click(lambda _: self.step(-1))
        forth.on_click(lambda _: self.step(1))
        super().__init__([back, self.list, forth])

    @property
    def value(self):
        """The chosen option; None for one that is no name."""
        return None if self.list.value is NO_NAME else self.list.value

    def step(self, by: int) -> None:
        """Go on by this many options; the first follows the last."""
        self.list.index = (self.list.index + by) % len(self.list.options)


class Pictured(Widget):
    """Controls above their figure, which :meth:`draw` draws again."""

    def build(self, *controls) -> None:
        """Put the controls above the message and the figure."""
        self.picture = w.Image(format="png", layout=w.Layout(width="100%", max_width="1150px"))
        self.children = [*controls, self.message, self.picture]
        self.message.observe(lambda _: self.draw(), "width_px")

    @property
    def page_px(self) -> int:
        """Pixels that a picture may be wide."""
        return min(max(self.message.width_px, PANEL_PX), 1150)

    def panels(self, ratios, height: float):
        """A figure as wide as the page, and its panels (axes), each ``height`` inches high.

        They stand side by side as far as they can be read there, else below each other.
        """
        rows = -(-len(ratios) // max(self.page_px // PANEL_PX, 1))
        columns = -(-len(ratios) // rows)
        figure = blank_figure(self.page_px / PAGE_DPI, rows * height)
        style = {"width_ratios": ratios} if rows == 1 else {}
        axes = figure.subplots(rows, columns, squeeze=False, **style).ravel()
        for ax in axes[len(ratios) :]:
            ax.set_axis_off()
        return figure, axes[: len(ratios)]

    def png(self) -> bytes:
        """The figure as it is shown."""
        return bytes(self.picture.value)

    def draw(self) -> None:
        """Draw the present state."""
        self.picture.value = super().png()
        self.message.picture = self.describe()

    def describe(self) -> str:
        """The picture in words, for those who cannot see it."""
        raise NotImplementedError


class OneType(Pictured):
    """A figure of one type of ``detector``, chosen by ``types``, a Stepper."""

    @property
    def name(self) -> str:
        """The type in view."""
        return self.types.value

    @property
    def type(self) -> int:
        """Its index."""
        return self.detector.names.index(self.name)

    def choose(self, name: str):
        """Look at one type; returns the widget."""
        require_known([name], self.detector.names)
        self.types.list.value = name
        return self


def blank_figure(width: float, height: float):
    """A figure of this size in inches, made without pyplot."""
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def html_table(header, rows) -> str:
    """A small table; cells are plain text, and stay so.

    >>> "&lt;b&gt;" in html_table(["name"], [["<b>"]])
    True
    """

    def cell(words, tag, scope=""):
        words = one_line(words)
        return f'<{tag}{scope} title="{escape(words)}">{escape(words)}</{tag}>' if words else f"<{tag}></{tag}>"

    def line(row):
        first, *rest = row
        return cell(first, "th", ' scope="row"') + "".join(cell(words, "td") for words in rest)

    head = "".join(cell(words, "th", ' scope="col"') if words else "<td></td>" for words in header)
    body = "".join(f"<tr>{line(row)}</tr>" for row in rows)
    # It can be scrolled where it is too wide, and therefore has the focus of the keyboard.
    about = 'class="evlib-numbers" tabindex="0" role="region" aria-label="numbers"'
    return f"<div {about}><table><tr>{head}</tr>{body}</table></div>"


def html_facts(facts: dict) -> str:
    """Names and values side by side, as many as there is room for; plain text.

    >>> html_facts({"type": "<b>"})
    '<div class="evlib-facts"><span title="&lt;b&gt;">type <b>&lt;b&gt;</b></span></div>'
    """
    pairs = ((escape(str(name)), escape(one_line(value))) for name, value in facts.items())
    cells = "".join(f'<span title="{value}">{name} <b>{value}</b></span>' for name, value in pairs)
    return f'<div class="evlib-facts">{cells}</div>'
