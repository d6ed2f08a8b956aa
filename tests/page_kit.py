"""What a browser would make of the pages that are written."""

from html.parser import HTMLParser

VOID_ELEMENTS = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects what a browser would make of the page and fails where tags do not match."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.attributes, self.words, self.styles = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID_ELEMENTS:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        (self.styles if self.stack and self.stack[-1] == "style" else self.words).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, tag, name):
        return [attributes[name] for found, attributes in self.attributes if found == tag and name in attributes]
