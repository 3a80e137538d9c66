"""Sphinx's settings for the book; `course_utils.site.build` hands them over."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.search.en import SearchEnglish

from course_utils.site.docstrings import as_rest

project = "Image generation"
html_title = "Image generation: principles and practice"
copyright = "the course's authors; text and pictures CC BY 4.0, code MIT"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["chapters", "solutions"]  # notebooks to download; `book` has the pages

nb_execution_mode = "off"
nb_merge_streams = True
nb_number_source_lines = False
myst_enable_extensions = ["dollarmath", "attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False
highlight_language = "text"
maximum_signature_line_length = 88

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # those of torch are no text of the course
autodoc_typehints_format = "short"
add_module_names = False
toc_object_entries = False
suppress_warnings = ["ref.python"]  # two classes of one name in two rooms: the type in a signature gets no link

html_theme = "furo"
templates_path = [str(Path(__file__).parent / "templates")]
html_sidebars = {
    "**": ["sidebar/brand.html", "language.html", "sidebar/search.html", "sidebar/scroll-start.html",
           "sidebar/navigation.html", "sidebar/scroll-end.html"]
}  # fmt: skip
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["katex/katex.min.css", "book.css"]
html_js_files = [("katex/katex.min.js", {"defer": "defer"}), ("maths.js", {"defer": "defer"}),
                 ("films.js", {"defer": "defer"})]  # fmt: skip
html_favicon = str(Path(__file__).parent / "static" / "icon.svg")
html_copy_source = False
html_show_sphinx = False
COLOURS = {
    "color-foreground-primary": "#1c2730",
    "color-code-background": "#f6f7f8",
    "color-brand-primary": "#1d5b79",
    "color-brand-content": "#1d5b79",
    "color-brand-visited": "#1d5b79",
}
DARK = {"color-brand-primary": "#8fc1dc", "color-brand-content": "#8fc1dc", "color-brand-visited": "#8fc1dc"}
FONTS = {"font-stack": "'Source Sans 3', 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"}
html_theme_options = {"light_css_variables": COLOURS | FONTS, "dark_css_variables": DARK, "footer_icons": []}
html_math_renderer = "katex"


def formula(self, node):
    """Leave a formula as TeX in the page: `static/maths.js` draws it."""
    tag = "span" if isinstance(node, nodes.math) else "div"
    self.body.append(self.starttag(node, tag, "", CLASS="math notranslate nohighlight"))
    self.body.append(self.encode(node.astext()) + f"</{tag}>\n" * (tag == "div") + "</span>" * (tag == "span"))
    raise nodes.SkipNode


class ChineseSearch(SearchEnglish):
    """Search in Chinese, written without spaces: each two neighbouring characters are a word; Latin ones as in English.

    Sphinx's own needs a package to find the words, and finds nothing without it.
    """

    lang = "zh"
    js_splitter_code = """
var splitQuery = (query) => (query.match(/[\u4e00-\u9fff]+|((?![\u4e00-\u9fff])[\\p{L}\\p{N}_])+/gu) || []).flatMap(
  (run) => run.length > 1 && run >= "\u4e00" ? [...run.slice(1)].map((_, n) => run.slice(n, n + 2)) : [run]);
"""

    def split(self, input: str) -> list[str]:
        words = []
        for run in re.findall(r"[\u4e00-\u9fff]+|[^\W\u4e00-\u9fff]+", input):
            pairs = [run[n : n + 2] for n in range(len(run) - 1)]
            words += pairs if pairs and run[0] >= "\u4e00" else [run]
        return words


def rest_of(app, what, name, thing, options, lines):
    """Turn a docstring, in place as autodoc wants it, into reStructuredText."""
    lines[:] = as_rest(list(lines))


def setup(app):
    """Connect what is above with Sphinx."""
    app.add_search_language(ChineseSearch)
    app.add_html_math_renderer("katex", (formula, None), (formula, None))
    app.connect("autodoc-process-docstring", rest_of)
