"""Keys of the event browser and the annotator: one table for the help in the widgets and the documentation."""

# Keys of the signal itself, in the browser and in the annotator: what is pressed, what happens.
SIGNAL_KEYS = {
    "← →": "move by a quarter of the view",
    "PageUp PageDown": "move by a whole view",
    "Home End": "the beginning, the end",
    "+ −": "zoom",
    "↑ ↓": "scale the signal",
    ", .": "select the mark before, the mark after",
    "shift ← →": "move the cursor",
    "Tab": "leave the signal",
}
# Key of the browser: the kind of event that it leads to; with shift to the one before.
BROWSER_KEYS = {"n": "event", "e": "error", "u": "least_certain", "r": "refractory", "d": "disagreement"}
KIND_WORDS = {
    "event": "next event",
    "error": "next error: a miss or a false alarm",
    "least_certain": "next least certain event",
    "refractory": "next event that is too close to the one before (refractory period)",
    "disagreement": "next event with the right time and another kind",
}
# Method of the annotator: caption, key, what it does.
ACTIONS = {
    "previous": ("◂ previous", "p", "the suggestion before"),
    "next": ("next ▸", "n", "the next suggestion, the least certain first"),
    "accept": ("✓ accept", "a", "it is an event; then the next suggestion"),
    "reject": ("✗ reject", "x", "it is none; then the next suggestion"),
    "accept_in_view": ("accept all in view", "", "every suggestion in view is an event"),
    "add_here": ("add", "Enter", "add an event at the onset nearest to the cursor; with shift exactly there"),
    "move_here": ("move", "m", "move the selected annotation to the cursor; with shift exactly there"),
    "relabel": ("relabel", "l", "give the selected annotation the type chosen in the list"),
    "delete": ("delete", "Delete", "remove the selected annotation"),
    "undo": ("undo", "u", "undo the last edit"),
    "redo": ("redo", "y", "repeat the edit that was undone"),
    "review": ("view is complete", "r", "every event in view is annotated: no label there means no event"),
    "save_events": ("save", "s", "write the table of events"),
    "fine_tune": ("fine-tune now", "", "train again on the corrected labels and see what changes"),
    "next_change": ("next change ▸", "c", "the next event that fine-tuning gained, lost or moved"),
}


def key_tables() -> dict[str, dict[str, str]]:
    """Keys and what they do: of the ``signal``, of the ``browser`` and of the ``annotator``.

    >>> key_tables()["browser"]["e"]
    'next error: a miss or a false alarm'
    """
    browser = {key: KIND_WORDS[kind] for key, kind in BROWSER_KEYS.items()}
    annotator = {key: what for _, key, what in ACTIONS.values() if key}
    return {"signal": SIGNAL_KEYS, "browser": browser, "annotator": annotator}


def key_help(widget: str) -> str:
    """The keys of a widget ("browser" or "annotator") as HTML, folded until somebody wants them."""
    tables = key_tables()
    rows = "".join(f"<div><kbd>{key}</kbd> {what}</div>" for key, what in (tables[widget] | tables["signal"]).items())
    return f'<details class="evlib-keys"><summary>keys in the signal</summary>{rows}</details>'
