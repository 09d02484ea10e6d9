"""Draw docs/rooms.png: the folders of evlib in the order of their imports, and five routes of data through them.

python tools/draw_rooms.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "rooms.png"
ROOMS = {
    "signals": "what is\nmeasured,\nand when",
    "scoring": "refractory\nrule, how good\nevents are",
    "templates": "what events\nlook like",
    "networks": "torch\nmodules\nand losses",
    "training": "one loop,\nits data,\nits files",
    "detection": "fit,\ndetect,\npretrain",
    "live": "signal that\nis still\ncoming",
    "inspection": "see and\ncorrect",
    "motion": "motion\nsensors to\nwords",
    "studies": "shared by\nnotebooks of\none study",
}
# Route: its stops in order, each a room and what happens there.
ROUTES = {
    "fit": [
        ("signals", "recordings,\nlabels"),
        ("detection", "check,\nhold out"),
        ("templates", "whiten, learn\ntemplates"),
        ("training", "train the\nscorer"),
        ("detection", "calibrate:\nDetector"),
    ],
    "detect": [
        ("signals", "recording,\nby blocks"),
        ("templates", "whiten, find\ncandidates"),
        ("networks", "score"),
        ("scoring", "decode"),
        ("inspection", "look,\ncorrect"),
    ],
    "stream": [
        ("live", "blocks of\na source"),
        ("detection", "search\na block"),
        ("scoring", "decode what\nis final"),
        ("live", "journal,\noutputs"),
        ("inspection", "watch"),
    ],
    "pretrain,\nfine-tune": [
        ("signals", "recordings,\nno labels"),
        ("templates", "whiten"),
        ("networks", "encoder,\npretext"),
        ("training", "train"),
        ("detection", "fine-tune"),
    ],
    "motion\nto words": [
        ("motion", "sessions,\nwindows"),
        ("networks", "patches,\nencoder"),
        ("training", "train twice"),
        ("motion", "nearest\nwords"),
    ],
}
COLOURS = ("#0072B2", "#D55E00", "#8C6D00", "#009E73", "#AA4499")
# Of a route, in units of a column: room for two stops in one folder.
ROUTE_HEIGHT = 1.6


def main():
    figure, ax = plt.subplots(figsize=(12.6, 9.0), dpi=110)
    column = {room: k for k, room in enumerate(ROOMS)}
    bottom = -ROUTE_HEIGHT * len(ROUTES) - 0.3
    for room, k in column.items():
        core = room not in ("inspection", "motion", "studies")
        ax.add_patch(
            plt.Rectangle((k - 0.46, bottom), 0.92, 1.55 - bottom, fc="#eef3f8" if core else "#f6f1ea", ec="none")
        )
        ax.text(k, 1.28, room, ha="center", va="center", weight="bold", size=12)
        ax.text(k, 0.92, ROOMS[room], ha="center", va="top", size=9.5, color="0.3")
    for row, ((name, stops), colour) in enumerate(zip(ROUTES.items(), COLOURS, strict=True)):
        y = -ROUTE_HEIGHT * row - 0.45
        ax.text(-0.62, y, name, ha="right", va="center", weight="bold", size=12, color=colour)
        seen = {}
        places = []
        for room, _ in stops:
            # A second visit to a room stands a little lower.
            places.append((column[room], y - 0.72 * seen.get(room, 0)))
            seen[room] = seen.get(room, 0) + 1
        for (x0, y0), (x1, y1) in zip(places, places[1:], strict=False):
            bend = 0.18 if x1 < x0 else 0.0
            style = f"arc3,rad={bend}"
            arrow = {
                "arrowstyle": "-|>",
                "color": colour,
                "lw": 1.8,
                "shrinkA": 11,
                "shrinkB": 11,
                "connectionstyle": style,
            }
            ax.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        for number, ((x, height), (_, words)) in enumerate(zip(places, stops, strict=True), 1):
            ax.plot(x, height, "o", ms=16, color=colour, zorder=3)
            ax.text(x, height, str(number), ha="center", va="center", color="white", weight="bold", size=10, zorder=4)
            ax.text(x, height - 0.2, words, ha="center", va="top", size=9.5, zorder=4)
    ax.set(xlim=(-1.75, len(ROOMS) - 0.5), ylim=(bottom - 0.1, 1.6))
    ax.text(-0.62, 1.28, "folder", ha="right", va="center", size=10, color="0.4")
    ax.text(
        -0.62, bottom + 0.02, "a folder\nimports only\nthose left of it", ha="right", va="bottom", size=9.5, color="0.4"
    )
    ax.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(OUTPUT)


if __name__ == "__main__":
    main()
