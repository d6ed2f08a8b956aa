"""The page: Gradio's inputs beside our own views of the result."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixreorg.errors import MixreorgError
from mixreorg.serve.limits import RefusalError
from mixreorg.serve.service import Service
from mixreorg.serve.views import as_views

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI

_HERE = Path(__file__).parent
EXAMPLES = _HERE / "examples"
"""Scenes that the package's own composer drew, with OpenMoji's pictures: see LICENSE.txt there."""
_EXAMPLE_NAMES = (
    ("scene_1.jpg", "horse, book, clock, bus"),
    ("scene_2.jpg", "car=car|taxi, fish, tree, clock"),
    ("scene_3.jpg", "bus=bus|coach, airplane=airplane|plane, cat, mushroom"),
)
_FIRST_THRESHOLD = 0.5
"""Where the slider stands for models whose protocol has no threshold."""
_INTRODUCTION = """# Any photo, any class names
Every pixel gets one of the names you give. What the names leave out cannot be found, and a name of something that is
not in the photo may still take pixels: the background threshold helps. Photos stay on the server."""
_CREDIT = (
    "The example scenes are made of pictures of OpenMoji, CC BY-SA 4.0. "
    '<a href="docs">HTTP API</a> · <a href="metrics">Figures</a>'
)
_WAITING = "Choose a photo, or one of the examples, and name what may be in it."
_FONTS = ["system-ui", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]


def mount_page(app: "FastAPI", service: Service) -> None:
    """Put the page at ``/``, below the routes that the application has already."""
    import gradio

    gradio.mount_gradio_app(
        app,
        _build_page(service),
        path="/",
        max_file_size=service.limits.max_bytes,
        ssr_mode=False,
        footer_links=[],
        show_error=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        css=(_HERE / "page.css").read_text(encoding="utf-8"),
        theme=_theme(),
    )


def _theme() -> "gradio.themes.Base":
    import gradio

    # Gradio's own choice of fonts would be asked for at Google, and its small print is too pale to read.
    return gradio.themes.Default(primary_hue="teal", font=_FONTS, font_mono=["monospace"]).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def _build_page(service: Service) -> "gradio.Blocks":
    import gradio

    script = (_HERE / "page.js").read_text(encoding="utf-8")
    # Photos that were uploaded are deleted after an hour, and when the server ends.
    with gradio.Blocks(title="mixreorg", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        gradio.Markdown(_INTRODUCTION)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                photo = _photo_input()
                names = gradio.Textbox(
                    label="Class names",
                    placeholder="dog, cat=cat|kitten, grass",
                    info="Commas between classes; name=phrase|phrase for synonyms.",
                    elem_id="names",
                )
                negatives = gradio.Textbox(
                    label="Other things in the photo",
                    placeholder="sky, road",
                    info="Optional names of what you do not want: they take their pixels, which become background.",
                    elem_id="negatives",
                )
                background, automatic = _threshold_inputs(service)
                button = gradio.Button("Segment", variant="primary", elem_id="segment")
                examples = gradio.Examples(
                    [[str(EXAMPLES / name), classes] for name, classes in _EXAMPLE_NAMES],
                    [photo, names],
                    label="Examples",
                    api_visibility="private",
                )
            with gradio.Column(scale=3, min_width=360), gradio.Tabs():
                views = []
                for title in ("Classes", "Groups"):
                    with gradio.Tab(title, render_children=True):
                        views.append(gradio.HTML(_note(_WAITING), js_on_load=script, elem_id=title.lower()))
        gradio.HTML(_CREDIT)
        segment, inputs = _segment(service), [photo, names, negatives, background, automatic]
        options = _request_options(service)
        gradio.on([button.click, names.submit, negatives.submit], segment, inputs, views, **options)
        # Not the slider's release: keys and its number field move it without one.
        for moved in (background.change, automatic.input):
            moved(_again(segment), inputs, views, **options)
        examples.load_input_event.success(segment, inputs, views, **options)
    page.queue(max_size=service.limits.max_waiting)
    # Gradio checks that a caller's file is an upload only in pages that it has launched itself. The guard checks, too.
    page.has_launched = True
    return page  # type: ignore[no-any-return]


def _request_options(service: Service) -> dict[str, Any]:
    """How Gradio sends requests."""
    return {
        "api_visibility": "private",
        # Requests wait for the model together, and become one batch.
        "concurrency_limit": service.limits.max_waiting,
        # What is asked while an answer is pending comes next: Gradio would drop it, and show the older answer.
        "trigger_mode": "always_last",
    }


def _threshold_inputs(service: Service) -> tuple["gradio.Slider", "gradio.Checkbox"]:
    """The slider, and the box that leaves the choice to the calibration or the photo."""
    import gradio

    threshold = service.protocol.background_threshold
    background = gradio.Slider(
        0,
        1,
        value=threshold or _FIRST_THRESHOLD,
        step=0.01,
        label="Background threshold",
        info="A pixel whose best score is below it becomes background. 0: none does.",
        elem_id="background",
    )
    label = "Choose the threshold automatically instead"
    return background, gradio.Checkbox(threshold is None, label=label, elem_id="automatic")


def _segment(service: Service) -> Any:
    import gradio

    async def segment(
        path: str | None, names: str, negatives: str, background: float, automatic: bool
    ) -> tuple[str, str]:
        """Serve one press of the button."""
        # A threshold of 0 means no background class, unless the model's protocol has one.
        plain = background == 0 and service.protocol.background_threshold is None
        threshold = "auto" if automatic else None if plain else background
        try:
            if path is None:
                raise RefusalError(422, "there is no photo; choose one first")
            if not names.strip():
                raise RefusalError(422, "there are no class names; write some, for example: dog, cat=cat|kitten, grass")
            async with service.admit():
                others = negatives.strip() or None
                return await service.segment(Path(path).read_bytes(), names, threshold, as_views, others)
        except MixreorgError as error:
            message = escape(str(error))  # Gradio shows messages as HTML
            gradio.Warning(message)
            # After an error of Gradio's, an earlier answer and its downloads would stay, as if they were to this one.
            return _note(message), _note(message)

    return segment


def _note(html: str) -> str:
    """What a view holds in place of a figure."""
    return f'<div class="waiting">{html}</div>'


def _again(segment: Any) -> Any:
    """The same for a moved slider or box, which ask for nothing while photo or names are still missing."""
    import gradio

    async def segment_again(path: str | None, names: str, *others: Any) -> Any:
        if path is None or not names.strip():
            return gradio.skip(), gradio.skip()
        return await segment(path, names, *others)

    return segment_again


def _photo_input() -> "gradio.Image":
    """Gradio's image input, which decodes nothing itself: the file goes to our own checks."""
    import gradio

    photo = gradio.Image(
        label="Photo", type="filepath", sources=["upload", "webcam", "clipboard"], height=280, elem_id="photo"
    )
    # Of this one object, and not by a subclass: for that, Gradio would write a file of types into the package.
    vars(photo).update(preprocess=lambda payload: None if payload is None else payload.path)
    return photo
