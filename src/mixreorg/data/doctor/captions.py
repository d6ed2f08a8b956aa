"""What a caption's text gives away without looking at its image, in any language."""

import re
import string

from mixreorg.text.tokenizer import Tokenizer, clean_text

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|www\.)\S+", re.IGNORECASE)
_FILE_NAME = re.compile(
    r"""(?:[^/\\]{0,200}|\S{0,300})\.(?:jpe?g|jfif|png|gif|webp|avif|bmp|tiff?|svg|heic|psd|raw|pdf|mp4|mov|html?|php)
    | (?:img|dsc[nf]?|pict|pxl|mvi|gopr|vid|wp|screen[ ]?shot|screenshot|scan)[-_ ]?\d[\w-]*""",
    re.IGNORECASE | re.VERBOSE,
)
_PLACEHOLDER = re.compile(
    r"""(?:no|add|your|image|photo|insert|missing|default|enter|alt)?[ _-]*
        (?:caption|description|title|alt|text|image|images|img|photo|photos|picture|pictures|pic|thumbnail|icon|logo)
        (?:[ _-]*(?:here|text|not[ ]available|unavailable|not[ ]found|missing|coming[ ]soon|placeholder|\d+))?
    | untitled(?:[ _-]*(?:document|image|design|\d+))? | unknown | undefined | null | none | nan | n/?a | placeholder
    | tbd | test | sample | example | default | lorem[ ]ipsum.*
    | (?:click|tap)[ ](?:here|to[ ]enlarge|to[ ]view).*
    | (?:<person>|\$?[{]+[^{}]*[}]+|%[sd]|\s)+""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# Chinese and Japanese are written without spaces: each of their characters counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")
_PUNCTUATION = string.punctuation + "、。，．：；！？「」『』（）【】《》“”„‘’‚«»‹›…·•¿¡–—―|"

# Format characters that Persian, Indic scripts and emoji need; the others can turn a line around or hide it.
_JOINERS = "\u200c\u200d"


def suspicion(caption: str) -> str | None:
    """The kind of finding that a stripped caption is, or None for one that may describe an image."""
    if _URL.fullmatch(caption):
        return "caption is a URL"
    if _FILE_NAME.fullmatch(caption):
        return "caption is a file name"
    if _PLACEHOLDER.fullmatch(caption.rstrip(".!:").removeprefix("[").removesuffix("]")):
        return "placeholder caption"
    # Letters of any script; digits, punctuation, symbols and emoji are none.
    if not any(map(str.isalpha, caption)):
        return "caption without letters"
    return None


def words(caption: str) -> list[str]:
    """Lower-case words: what white space parts, without punctuation around it; single characters of CJK scripts."""
    found = (word.strip(_PUNCTUATION) for word in _WORD.findall(caption.lower()))
    return [word for word in found if word]


def token_length(tokenizer: Tokenizer, caption: str) -> int:
    """Token ids of a caption, start and end included, before it is cut at the context length.

    A caption that is too long is measured word by word, which is how it is encoded; a single word beyond the
    context length counts as no more than that, so the sum still shows that the caption is cut.
    """
    length = len(tokenizer.encode_ids([caption])[0])
    if length < tokenizer.context_length:
        return length
    return 2 + sum(len(ids) - 2 for ids in tokenizer.encode_ids(clean_text(caption).split()))


def printable(text: str) -> str:
    """Text in one line that any file, page or terminal takes: control characters and broken ones are replaced.

    Captions are written by strangers: escape sequences in them must not reach a terminal.
    """
    whole = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return "".join(char if char.isprintable() or char in _JOINERS else "\ufffd" for char in whole)
