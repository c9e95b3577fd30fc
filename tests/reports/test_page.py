"""report.html as a file: it needs no network, and no text that it shows can act."""

import json
import re
from html.parser import HTMLParser

import pytest
from tests.reports.records import HOSTILE

LOADS = {"src", "srcset", "data", "poster", "action", "formaction", "background"}


class Elements(HTMLParser):
    """Every tag with its attributes, and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def text(written) -> str:
    return (written.folder / "report.html").read_text()


def test_nothing_is_loaded_from_anywhere(text):
    for tag, attributes in Elements(text).found:
        assert not LOADS & attributes.keys(), (tag, attributes)
        assert tag not in {"link", "iframe", "object", "embed", "img", "base"}
        for name in ("href", "xlink:href"):
            assert re.match(r"#|\./", attributes.get(name) or "#"), attributes
    assert not re.search(r"https?:|//\w+\.|url\((?!#)|@import", text)


def test_a_policy_forbids_other_scripts_and_connections(text):
    policy = next(each["content"] for tag, each in Elements(text).found if tag == "meta" and "http-equiv" in each)
    assert policy.startswith("default-src 'none'; ")
    assert re.search(r"script-src 'sha256-[\w+/=]{44}'(;|$)", policy)
    assert "connect-src" not in policy


def test_hostile_text_is_only_data(text):
    assert HOSTILE not in text
    scripts = [each for tag, each in Elements(text).found if tag == "script"]
    assert len(scripts) == 2, "the data and page.js"
    assert not any(name.startswith("on") for _, each in Elements(text).found for name in each)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["runs"]["arm-0003/1"]["log"] == HOSTILE


def test_ids_are_unique_and_every_place_within_the_page_exists(text):
    elements = Elements(text).found
    ids = [each["id"] for _, each in elements if "id" in each]
    assert len(ids) == len(set(ids))
    places = {each.get("href") or each.get("xlink:href") or "" for _, each in elements}
    within = {place[1:] for place in places if place.startswith("#") and not place.startswith("#/")}
    assert within <= set(ids)


def test_every_run_has_its_details(text):
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert len(data["runs"]) == 18
    failed = data["runs"]["arm-0003/1"]
    assert failed["cause"] == "NaN"
    assert failed["changes"][0][0] == "train.optimizer.lr"
    assert ["attempts", "1"] in failed["resources"]
    assert any("loss is nan" in line for line in failed["evidence"])
