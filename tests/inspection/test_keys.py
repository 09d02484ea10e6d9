"""Keys: the documentation, the help in the widgets and the code say the same."""

import re

import pytest

from evlib.inspection.annotator import Annotator
from evlib.inspection.browser import EventBrowser
from evlib.inspection.keys import ACTIONS, BROWSER_KEYS, key_help, key_tables
from evlib.scoring.comparison import KINDS

TITLES = {"Keys in the signal": "signal", "Keys of the event browser": "browser", "Keys of the annotator": "annotator"}


@pytest.mark.parametrize(("title", "table"), TITLES.items())
def test_the_documentation_lists_every_key(repository, title, table):
    section = (repository / "docs" / "keys.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", section, re.MULTILINE)
    assert dict(rows) == key_tables()[table]


def test_no_key_has_two_meanings():
    tables = key_tables()
    own = {key for keys in tables["signal"] for key in keys.split()}
    for widget in ("browser", "annotator"):
        assert not own & set(tables[widget]), "the signal takes these keys first"
    assert len({key.lower() for _, key, _ in ACTIONS.values() if key}) == sum(
        bool(key) for _, key, _ in ACTIONS.values()
    )
    assert set(BROWSER_KEYS.values()) == set(KINDS)


def test_every_action_is_a_method_with_a_button():
    assert all(callable(getattr(Annotator, name)) for name in ACTIONS)
    assert callable(EventBrowser.next) and callable(EventBrowser.previous)


@pytest.mark.parametrize("widget", ["browser", "annotator"])
def test_the_help_names_every_key(widget):
    tables = key_tables()
    for key, what in (tables[widget] | tables["signal"]).items():
        assert f"<kbd>{key}</kbd> {what}" in key_help(widget)
