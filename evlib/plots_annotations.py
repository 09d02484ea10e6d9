"""Figures of annotations: what is decided, what is not, and what fine-tuning changed."""

from .plots import plot_recording

# How an annotation is drawn: an event (accepted or added by hand), undecided, rejected.
ANNOTATION_COLOURS = {"event": "#1a7f37", "undecided": "#d9730d", "rejected": "#8c8c8c"}
CHANGE_COLOURS = {"gained": "#1f6fd0", "lost": "#c62828", "moved": "#7b3fa0"}
REVIEWED_COLOUR = "#e3f3e6"
MAX_LABELS = 40


def standing(annotation):
    """How an annotation is drawn: "event", "undecided" or "rejected"."""
    return "event" if annotation.is_event else "undecided" if annotation.status == "proposed" else "rejected"


def plot_annotations(recording, annotations, reviewed_s=(), start_s=0.0, stop_s=None, ax=None, highpass_hz=None, selected=-1):
    """Channels stacked over time with a line at every annotation; complete (reviewed) spans have a green ground.

    Parameters
    ----------
    recording : Recording
    annotations : list of Annotation, as :meth:`AnnotationLog.rows` gives it
    reviewed_s : (k, 2) seconds
    start_s, stop_s : the part to show, seconds; all without them
    highpass_hz : as for `plot_recording`
    selected : id of an annotation to draw bold

    Returns
    -------
    axes
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    ax = plot_recording(recording, None, start_s, stop_s, ax, highpass_hz=highpass_hz)
    left, right = ax.get_xlim()
    for start, stop in reviewed_s:
        if start < right and stop > left:
            ax.axvspan(max(start, left), min(stop, right), color=REVIEWED_COLOUR, zorder=0)
    shown = [row for row in annotations if left <= row.time_s < right]
    free = {}
    for row in shown:
        kind = standing(row)
        colour, bold = ANNOTATION_COLOURS[kind], row.id == selected
        ax.axvline(row.time_s, color=colour, linestyle="-" if kind == "event" else "--", linewidth=2.5 if bold else 1.2, zorder=3)
        if len(shown) > MAX_LABELS:
            continue
        # Labels that would overlap climb to the next row.
        width = 0.012 * len(row.type) * (right - left)
        level = next(k for k in range(len(shown) + 1) if free.get(k, left - 1) <= row.time_s)
        free[level] = row.time_s + width
        words = row.type if row.score is None or kind == "event" else f"{row.type} {row.score:.2f}"
        place = (row.time_s, 1 + 0.045 * level)
        style = {"fontsize": "small", "color": colour, "weight": "bold" if bold else "normal"}
        ax.annotate(words, place, (2, 3), xycoords=ax.get_xaxis_transform(), textcoords="offset points", **style)
    lines = {"event": "-", "undecided": "--", "rejected": "--"}
    handles = [Line2D([], [], color=ANNOTATION_COLOURS[kind], linestyle=style, label=kind) for kind, style in lines.items()]
    handles.append(Patch(color=REVIEWED_COLOUR, label="complete"))
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=4, fontsize="small", frameon=False)
    return ax
