"""What all widgets share: a static twin, so that no one ever looks at an empty cell.

A front end that can draw the widget does; where none can (an executed notebook opened without trusting it, a page on
a code host, an export), the same output shows ``figure()``, the picture of the state in which the cell was run.
"""

import base64
import io
from html import escape

import ipywidgets
import ipywidgets as w

from ..signals.errors import EvlibError, OptionError
from ..signals.files import replace_file

SCREEN_DPI = 120


class StaticTwin(ipywidgets.VBox):
    """A column of widgets with a picture of their state.

    Subclasses implement :meth:`figure`: a matplotlib Figure made without pyplot (``matplotlib.figure.Figure``), so that
    nothing shows twice and no figure stays open.
    """

    def figure(self):
        """The present state as a matplotlib Figure."""
        raise NotImplementedError(f"{type(self).__name__} has no figure()")

    def png(self) -> bytes:
        """The figure as PNG."""
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=SCREEN_DPI)
        return buffer.getvalue()

    def save(self, path, dpi=150):
        """Write the figure; the file is replaced only once it is whole. The ending of ``path`` says of what kind."""
        with replace_file(path) as temporary:
            self.figure().savefig(temporary, dpi=dpi)

    def __repr__(self):
        return f"{type(self).__name__}: a widget; its picture shows the state in which this cell was run"

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        return {**bundle, "image/png": base64.b64encode(self.png()).decode()}


# --- Parts that several widgets are made of: a picture that is drawn anew, a list with buttons to step through, mes


LABEL = {"description_width": "initial"}
CSS = """<style>
.evlib-numbers table {border-collapse: collapse; font-variant-numeric: tabular-nums; line-height: 1.5}
.evlib-numbers td, .evlib-numbers th {padding: 0 0.9em 0 0; text-align: right; white-space: nowrap}
.evlib-numbers td:first-child, .evlib-numbers th:first-child {text-align: left; font-weight: 600}
.evlib-warning {color: #b3261e}
</style>"""


class Stepper(w.HBox):
    """A drop-down list between two buttons, to the option before and after."""

    def __init__(self, options, description=""):
        self.list = w.Dropdown(options=options, description=description, style=LABEL, layout=w.Layout(width="260px"))
        # Signs, not icons: these come from a font that may not be there.
        back, forth = (
            w.Button(description=sign, tooltip=f"{description} {where}", layout=w.Layout(width="36px"))
            for sign, where in (("◀", "before"), ("▶", "after"))
        )
        back.on_click(lambda _: self.step(-1))
        forth.on_click(lambda _: self.step(1))
        super().__init__([back, self.list, forth])

    @property
    def value(self):
        """What is chosen."""
        return self.list.value

    def step(self, by):
        """Go on by so many options, round and round."""
        options = list(self.list.options)
        self.list.value = options[(options.index(self.list.value) + by) % len(options)]


class Pictured(StaticTwin):
    """Widgets around a matplotlib picture, which :meth:`draw` draws anew."""

    def __init__(self, children, **options):
        self.picture = w.Image(format="png", layout=w.Layout(width="100%", max_width="1150px"))
        self.message = w.HTML()
        super().__init__(
            [w.HTML(CSS, layout=w.Layout(display="none")), *children, self.message, self.picture], **options
        )
        self.layout.width = "100%"

    def png(self):
        """The picture that is shown."""
        return bytes(self.picture.value)

    def draw(self):
        """Draw the present state."""
        self.picture.value = super().png()

    def say(self, text, warning=False):
        """Show a line of plain text between the controls and the picture; none for an empty one."""
        self.message.value = f'<div class="{"evlib-warning" if warning else ""}">{escape(text)}</div>' if text else ""

    def on_click(self, button, act):
        """Let a button act; what evlib refuses is shown instead of raised, because nobody would see it."""

        def clicked(_):
            try:
                act()
            except EvlibError as error:
                self.say(str(error), warning=True)

        button.on_click(clicked)


class OneType(Pictured):
    """A picture of one type of a ``detector``, which ``types``, a Stepper, chooses."""

    @property
    def name(self):
        """The type in view."""
        return self.types.value

    @property
    def type(self):
        """Its index."""
        return self.detector.names.index(self.name)

    def choose(self, name):
        """Look at one type."""
        if name not in self.detector.names:
            raise OptionError(f"the detector knows no type {name!r}; it knows {', '.join(self.detector.names)}")
        self.types.list.value = name
        return self


def blank_figure(width, height):
    """A figure of so many inches that pyplot knows nothing of: it is shown once, and freed."""
    from matplotlib.figure import Figure

    return Figure((width, height), layout="constrained")


def html_table(header, rows):
    """A small table; cells are plain text."""
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="evlib-numbers"><table><tr>{head}</tr>{body}</table></div>'
