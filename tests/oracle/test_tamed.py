"""A page written anew: what is parsed is bounded whatever the page, and of honest pages nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from targon.oracle.sources.html import readable
from targon.oracle.sources.limits import LIMITS
from targon.oracle.sources.skipped import Unreadable
from targon.oracle.sources.tamed import tamed

TAGS = (
    *(
        "a href=x",
        "b",
        "b i=1",
        "i",
        "em",
        "font size=2",
        "nobr",
        "code",
        "p",
        "div",
        "span",
        "ul",
        "li",
        "dl",
        "dt",
    ),
    *(
        "table",
        "tr",
        "td",
        "th",
        "tbody",
        "caption",
        "svg",
        "math",
        "foreignObject",
        "desc",
        "path/",
        "mi",
        "annotation-xml",
    ),
    *(
        "select",
        "option",
        "button",
        "form",
        "h1",
        "h2",
        "pre",
        "article",
        "main",
        "template",
        "frameset",
        "body",
        "html",
    ),
    *(
        "br",
        "hr",
        "img",
        "script",
        "style",
        "title",
        "textarea",
        "plaintext",
        "object",
        "marquee",
        "ruby",
        "rt",
        "x-y",
    ),
)
PIECES = st.one_of(
    st.sampled_from(TAGS).map("<{}>".format),
    st.sampled_from(TAGS).map(lambda tag: f"</{tag.split()[0].strip('/')}>"),
    st.sampled_from(
        [
            "text",
            " ",
            "<",
            "&lt;b>",
            "<!--",
            "-->",
            "<!x>",
            "<?x>",
            "</>",
            "<a b='",
            "'",
            '"',
            '<p a=">',
            "\0",
        ]
    ),
)


def shape(page: str) -> tuple[int, int]:
    """How many elements a page has once it is parsed, and how deep they lie."""
    root = HTMLTree.parse(page).document
    assert root is not None
    count = deepest = 0
    pending = [(root, 0)]
    while pending:
        node, depth = pending.pop()
        count, deepest = count + 1, max(deepest, depth)
        pending += [(child, depth + 1) for child in node.child_nodes]
    return count, deepest


@given(st.lists(PIECES, max_size=40), st.integers(1, 12))
def test_what_is_parsed_grows_no_faster_than_the_page(pieces: list[str], times: int) -> None:
    """Every element that a parser sets up was written, but for a few around tables and for each paragraph."""
    page = "".join(pieces) * times
    try:
        written = tamed(page)
    except Unreadable as error:
        assert error.reason == "too_deep"  # noqa: PT017
        return
    elements = written.count("<")
    count, deepest = shape(written)
    assert count <= 3 * elements + 12
    assert deepest <= LIMITS.html_depth + 12
    assert len(written) <= 3 * len(page) + 40


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>one<p>two", "<p>one</p><p>two</p>"),
        ("<ul><li>one<li>two<ul><li>in</ul><li>three</ul>",
         "<ul><li>one</li><li>two<ul><li>in</li></ul></li><li>three</li></ul>"),
        ("<table><tr><td>a<td>b<tr><th>c</table>d",
         "<table><tr><td>a</td><td>b</td></tr><tr><th>c</th></tr></table>d"),
        ("<div><b>bold <i>both</b> neither</i> end</div>", "<div>bold both neither end</div>"),
        ("<b><div>in</b> still in</div>", "<div>in still in</div>"),
        ("<div><table><td>x</div>y</table>z</div>", "<div><table><td>xy</td></table>z</div>"),
        ("<a href=x>one<a href=y>two</a>", '<a href="x">onetwo</a>'),
        ("1 < 2 <3 <\u00e9 </ nothing>", "1 &lt; 2 &lt;3 &lt;\u00e9 "),
        ("a<!-- <div> -->b<!doctype x>c<?php x ?>d", "abcd"),
        ("a<script>if (a < b) '<div>'</script >b<STYLE>p</STYLE>c<svg><td></svg>d", "abcd"),
        ("a<script>never ends <p>", "a"),
        ("a<svg>never <p>ends", "anever <p>ends</p>"),
        ("a<p title='>'>b", "a<p>b</p>"),
        ("a<p class=\"x y\" onclick='x>y' hidden id=z>b", 'a<p class="x y" hidden="" id="z">b</p>'),
        ("a<p class='\"><b>'>b", 'a<p class="&quot;><b>">b</p>'),
        ("a<p class", "a"),
        ("a<!-- never ends <p>x", "a"),
        ("<meta name=robots content=noindex><base href=/x>", '<meta name="robots" content="noindex"><base href="/x">'),
    ],
)  # fmt: skip
def test_pages_are_written_as_they_are_read(page: str, expected: str) -> None:
    assert tamed(page) == "<!doctype html>" + expected


def test_the_main_text_of_an_honest_page_is_what_it_was() -> None:
    story = "".join(
        f"<p>Paragraph {number} of a <b>story</b> with <a href=/x>a link</a> in it." for number in range(9)
    )
    page = (
        "<html><head><title>T</title></head><body class=home><nav><ul><li><a href=/>Home</a><li><a href=/b>B</a></ul>"
        f"</nav><div id=content><article class=post><h1>A story</h1>{story}</article></div>"
        "<div class=sidebar><a href=/1>Related</a></div><footer>All of it</footer></body></html>"
    )
    assert readable(tamed(page)) == readable(page)
    assert "Paragraph 8 of a story with a link in it." in readable(page)
