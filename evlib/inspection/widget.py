"""What all widgets share: a static figure, a line of messages, buttons whose errors are shown, lists to step through.

A front end that can draw a widget does so. Where none can (an executed notebook that is not trusted, a page on a code
host, an export), the same output shows ``figure()``: the state in which the cell was run.
"""

import base64
import io
from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets as w

from ..signals.atomic import replace_file
from ..signals.errors import EvlibError, require_known

# Dots per inch of figures on a screen.
SCREEN_DPI = 120
LABEL = {"description_width": "initial"}
WRAP = w.Layout(flex_flow="row wrap", align_items="center")
WARNING_COLOUR = "#c62828"
TABLE_STYLE = """<style>
.evlib-numbers table {border-collapse: collapse; font-variant-numeric: tabular-nums; line-height: 1.5}
.evlib-numbers td, .evlib-numbers th {padding: 0 0.9em 0 0; text-align: right; white-space: nowrap}
.evlib-numbers td:first-child, .evlib-numbers th:first-child {text-align: left; font-weight: 600}
</style>"""


class Widget(w.VBox):
    """A column of controls with a static figure of their state, and ``message``, a line of plain text.

    Subclasses set ``children`` and implement :meth:`figure`.
    """

    def __init__(self):
        self.message = w.HTML()
        super().__init__(layout=w.Layout(width="100%"))

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
        colour = WARNING_COLOUR if warning else "inherit"
        self.message.value = f'<span style="color:{colour}">{escape(text)}</span>' if text else ""

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
    """A drop-down list between two buttons, to the option before and the one after."""

    def __init__(self, options, description: str = ""):
        self.list = w.Dropdown(options=options, description=description, style=LABEL, layout=w.Layout(width="260px"))
        # Characters, not icons: these come from a font that may be missing.
        back, forth = (
            w.Button(description=sign, tooltip=f"{description} {where}", layout=w.Layout(width="36px"))
            for sign, where in (("◀", "before"), ("▶", "after"))
        )
        back.on_click(lambda _: self.step(-1))
        forth.on_click(lambda _: self.step(1))
        super().__init__([back, self.list, forth])

    @property
    def value(self):
        """The chosen option."""
        return self.list.value

    def step(self, by: int) -> None:
        """Go on by this many options; the first follows the last."""
        options = list(self.list.options)
        self.list.value = options[(options.index(self.list.value) + by) % len(options)]


class Pictured(Widget):
    """Controls above their figure, which :meth:`draw` draws again."""

    def build(self, *controls) -> None:
        """Put the controls above the message and the figure."""
        self.picture = w.Image(format="png", layout=w.Layout(width="100%", max_width="1150px"))
        self.children = [*controls, self.message, self.picture]

    def png(self) -> bytes:
        """The figure as it is shown."""
        return bytes(self.picture.value)

    def draw(self) -> None:
        """Draw the present state."""
        self.picture.value = super().png()


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


def html_table(header, rows, colours=()) -> str:
    """A small table; cells are plain text, those that are a key of ``colours`` have its colour.

    >>> "&lt;b&gt;" in html_table(["name"], [["<b>"]])
    True
    """
    colours = dict(colours)

    def cells(row, tag):
        return "".join(
            f'<{tag} style="color:{colours.get(str(cell), "inherit")}">{escape(str(cell))}</{tag}>' for cell in row
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'{TABLE_STYLE}<div class="evlib-numbers"><table><tr>{cells(header, "th")}</tr>{body}</table></div>'
