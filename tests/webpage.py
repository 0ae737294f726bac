"""What tests read an HTML page with."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """The text of a page's body in order, blanks as a browser shows them; fails if an element is never closed."""

    VOID = frozenset({"meta", "img", "input", "br", "path", "use"})

    def __init__(self, text: str):
        super().__init__()
        self.open, self.words, self.links = [], [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and "body" in self.open and "style" not in self.open:
            self.words.append(" ".join(data.split()))
