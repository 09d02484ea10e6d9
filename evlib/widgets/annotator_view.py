"""What the annotator shows besides the signal: marks for the canvas, and numbers as HTML."""

from html import escape

import numpy as np

from ..plots_annotations import ANNOTATION_COLOURS, CHANGE_COLOURS, standing

# Marks of fine-tuned detections have ids from here on.
CHANGE_ID = 1 << 30
MAX_ROWS = 20


def annotation_marks(rows, changed, start_s, stop_s, prefix=0):
    """Marks of annotations, and of ``changed`` (time_s, name, "gained" | "lost" | "moved"), from ``start_s`` to ``stop_s``.

    Without their first ``prefix`` letters names are told apart where they have little room.
    """
    marks = []
    for row in rows:
        if start_s <= row.time_s <= stop_s:
            mark = {"id": row.id, "time_s": row.time_s, "label": row.type, "colour": ANNOTATION_COLOURS[standing(row)]}
            kind = "reference" if row.is_event else "proposal"
            weight = 2 if row.status == "proposed" else 1
            marks.append(mark | {"kind": kind, "score": row.score, "note": row.status, "weight": weight})
    for k, (time_s, name, kind) in enumerate(changed):
        if start_s <= time_s <= stop_s:
            mark = {"id": CHANGE_ID + k, "time_s": float(time_s), "label": name, "colour": CHANGE_COLOURS[kind]}
            marks.append(mark | {"kind": "estimated", "score": None, "note": kind, "weight": 2})
    return [mark | {"short": mark["label"][prefix:]} for mark in marks]


def status_line(session):
    """How far the work has come."""
    log = session.log
    number = {status: 0 for status in ("proposed", "accepted", "added", "rejected")}
    for row in log.rows():
        number[row.status] += 1
    reviewed_s = float(np.diff(log.reviewed_s).sum())
    n_events = number["accepted"] + number["added"]
    parts = [
        f"<b style='color:{ANNOTATION_COLOURS['undecided']}'>{number['proposed']} undecided</b>",
        f"<b style='color:{ANNOTATION_COLOURS['event']}'>{n_events} event{'s' * (n_events != 1)}</b>"
        f" ({number['accepted']} accepted, {number['added']} added)",
        f"{number['rejected']} rejected",
        f"{_duration(reviewed_s, log.duration_s)} complete",
    ]
    if reviewed_s:
        parts.append(f"{log.edits_per_minute:.1f} edits per minute of it")
    violations = session.violations()
    if violations:
        parts.append(f"<b style='color:{CHANGE_COLOURS['lost']}'>{violations} pairs closer than the refractory period</b>")
    return " · ".join(parts)


def _duration(part_s, all_s):
    return f"{part_s:.1f} of {all_s:.1f} s" if all_s < 300 else f"{part_s / 60:.1f} of {all_s / 60:.1f} min"


def changes_table(changes, unlearnable=()):
    """What fine-tuning changed, one row for each kind of event that it changed most."""
    table = changes.to_frame()
    table["changed"] = table["gained"] + table["lost"] + table["moved"]
    shown = table[table["changed"] > 0].nlargest(MAX_ROWS, "changed", keep="first")
    style = "padding:1px 14px 1px 0;text-align:right"
    head = "".join(f"<th style='{style};color:{CHANGE_COLOURS.get(name, '#222')}'>{name}</th>" for name in table.columns[:4])
    rows = "".join(
        f"<tr><td style='{style};text-align:left'>{escape(str(name))}</td>"
        + "".join(f"<td style='{style}'>{row[column]}</td>" for column in table.columns[:4])
        + "</tr>"
        for name, row in shown.iterrows()
    )
    left = len(table[table["changed"] > 0]) - len(shown)
    more = f"<br>and {left} more kinds" if left else ""
    warning = ""
    if unlearnable:
        names = escape(", ".join(unlearnable[:8])) + (" …" if len(unlearnable) > 8 else "")
        warning = f"<br><span style='color:{CHANGE_COLOURS['lost']}'>Without a label, and so not found any more: {names}</span>"
    body = f"<table style='border-collapse:collapse'><tr><th style='{style};text-align:left'>kind</th>{head}</tr>{rows}</table>"
    return f"<div style='line-height:1.5'>Fine-tuned: {escape(str(changes))}{warning}{body if len(shown) else ''}{more}</div>"
