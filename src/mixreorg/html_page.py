"""The frame of every page that is written: one file that needs nothing else and fetches nothing."""


def html_page(title: str, style: str, body: str) -> str:
    """A whole document.

    Args:
        title: as HTML.
        style: CSS.
        body: HTML; what comes from users is escaped in it already.
    """
    return _DOCUMENT.replace("{title}", title).replace("{style}", style).replace("{body}", body)


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
