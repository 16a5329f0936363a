"""How Sphinx makes the site of the docs: see `make docs`."""

# pyright: reportUnusedFunction=false

from typing import Any

import refold

project = "refold"
author = "the refold authors"
project_copyright = "the refold authors, Apache-2.0"
version = release = refold.__version__

# From the top of the checkout, so that every link leads where it leads on a code host.
root_doc = "README"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = ["docs/images/**"]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
default_role = "code"
suppress_warnings = ["ref.python"]  # two classes have an attribute of the same name
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"refold {release}"

CONTENTS = """
```{toctree}
:hidden:
:caption: Use it

docs/guide
docs/concepts
docs/how-to
docs/command-line
docs/debugging
docs/export
docs/scaling
docs/backup
docs/liveness
docs/ui
docs/rapidfire
```

```{toctree}
:hidden:
:caption: Look it up

docs/api
docs/reference
docs/performance
CHANGELOG
docs/moved
```

```{toctree}
:hidden:
:caption: Work on it

CONTRIBUTING
SECURITY
docs/design
docs/order
```
"""


def setup(app: Any) -> None:
    """Have the contents follow the front page, where a code host would show them as code."""

    def add_contents(_: Any, page: str, source: list[str]) -> None:
        if page == root_doc:
            source[0] += CONTENTS

    app.connect("source-read", add_contents)
