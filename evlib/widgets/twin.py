"""What all widgets share: a static twin, so that no one ever looks at an empty cell.

A front end that can draw the widget does; where none can (an executed notebook opened without trusting it, a page on
a code host, an export), the same output shows ``figure()``, the picture of the state in which the cell was run.
"""

import base64
import io

import ipywidgets

from ..files import replace_file

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
