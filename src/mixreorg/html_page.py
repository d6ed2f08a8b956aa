"""The frame of every page that is written: one file that needs nothing else and fetches nothing."""


def html_page(title: str, style: str, body: str) -> str:
    """A whole document.

    Args:
        title: as HTML.
        style: CSS of this page, in the variables and after the rules of the common theme.
        body: HTML; what comes from users is escaped in it already.
    """
    return _DOCUMENT.replace("{title}", title).replace("{style}", _THEME + style).replace("{body}", body)


_THEME = """:root {
  color-scheme: light dark;
  --ink: #1d2129; --muted: #5b6270; --paper: #ffffff; --panel: #f3f4f7; --line: #d9dce3; --accent: #1f62b5;
  --serious: #b3261e; --warning: #8a5a00; --good: #1d7a46;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7e9ee; --muted: #a3aab8; --paper: #14161b; --panel: #1f232b; --line: #363c48; --accent: #7fb2f5;
    --serious: #ff8a80; --warning: #f0b955; --good: #6fd39b;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: clamp(1.7rem, 5vw, 2.4rem); line-height: 1.15; margin: 0 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 2.8rem 0 .7rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { max-width: 46rem; margin: 0 0 .8rem; overflow-wrap: anywhere; }
code { font: .92em ui-monospace, monospace; overflow-wrap: anywhere; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: system-ui, sans-serif !important; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: .88rem; }
"""
"""Colours, sizes and rules that all pages share."""

# The policy makes the browser itself refuse anything that the file does not hold.
_DOCUMENT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
