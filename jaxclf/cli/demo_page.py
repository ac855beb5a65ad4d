"""The page of `jaxclf demo` and its event handlers. The only module that imports gradio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports] - an extra

from jaxclf import saliency
from jaxclf.cli.demo_prediction import TOP, predict_image
from jaxclf.errors import UserError
from jaxclf.inference.preprocess import Preprocessor
from jaxclf.inference.trained_model import TrainedModel

CANVAS = 280  # pixels, width and height
BRUSH = 11  # pixels, radius: relative to the digit, strokes are as thick as in MNIST
# An empty canvas has no tool selected, and its buttons appear some time after the page has loaded.
SELECT_BRUSH = """() => {
    const timer = setInterval(() => {
        const brush = document.querySelector("[aria-label=Brush]");
        if (brush) { brush.click(); clearInterval(timer); }
    }, 100);
}"""


@dataclass(frozen=True, eq=False)
class Handlers:
    """Event handlers of the page."""

    run: TrainedModel
    methods: Mapping[str, saliency.Method]

    def predict(self, image: str | None, method: str, center: bool) -> tuple[Any, ...]:
        """Return the outputs for a new image: message, classes, network input, predicted class, attribution."""
        return self._predict(image, method, None, center)

    def explain(self, image: str | None, method: str, target: int, center: bool) -> Any:
        """Return the attribution of one class."""
        return self._predict(image, method, target, center)[-1]

    def _predict(self, image: str | None, method: str, target: int | None, center: bool) -> tuple[Any, ...]:
        if image is None:
            return "", None, None, gr.skip(), None
        preprocessor = Preprocessor(self.run.image_shape, center=center, resizing=self.run.resizing)
        try:
            found = predict_image(self.run, preprocessor, Path(image), self.methods[method], target)
        except UserError as error:
            raise gr.Error(str(error)) from error
        if isinstance(found, str):
            return found, None, None, gr.skip(), None
        message = "inverted, because it is dark on light" if found.inverted else ""
        label = f"attribution for class {self.run.class_names[found.target]} (red: positive, blue: negative)"
        return message, found.top, found.network_input, found.target, gr.Image(found.overlay, label=label)


def launch_page(run: TrainedModel, methods: Mapping[str, saliency.Method], host: str, port: int) -> gr.Blocks:
    """Serve the page at an address, in other threads, until it is closed."""
    page = _build_page(Handlers(run, methods))
    theme = gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("monospace",))
    page.launch(
        server_name=host, server_port=port, share=False, ssr_mode=False, quiet=True, prevent_thread_lock=True,
        theme=theme, footer_links=[], run_history=False,
    )  # fmt: skip
    return page


def _build_page(handlers: Handlers) -> gr.Blocks:
    """Build the components of the page and connect them to the handlers."""
    run = handlers.run
    name = run.directory.path.absolute().name
    with gr.Blocks(title=f"jaxclf: {name}", analytics_enabled=False) as page:
        gr.Markdown(f"## {name} after {run.step:,} steps")
        with gr.Row():
            with gr.Column():
                image = gr.State()
                center = _add_inputs(page, image, grayscale=run.image_shape[2] == 1)
                message = gr.Markdown()
            with gr.Column():
                top = gr.Label(num_top_classes=TOP, label="predicted classes")
                network_input = _make_output_image("network input")
            with gr.Column():
                method = gr.Dropdown(list(handlers.methods), label="saliency method")
                target = gr.Slider(0, len(run.class_names) - 1, step=1, label="class")
                overlay = _make_output_image("attribution")
        latest: dict[str, Any] = {"trigger_mode": "always_last", "concurrency_id": "network"}
        outputs = [message, top, network_input, target, overlay]
        gr.on([image.change, center.input], handlers.predict, [image, method, center], outputs, **latest)
        gr.on([method.input, target.input], handlers.explain, [image, method, target, center], overlay, **latest)
    return page


def _add_inputs(page: gr.Blocks, image: gr.State, grayscale: bool) -> gr.Checkbox:
    """Add the canvas and the upload, which store a file path in `image`; return the checkbox for centering."""
    if grayscale:
        with gr.Tab("Draw"):
            _add_canvas(page, image)
    with gr.Tab("Image"):
        upload = gr.Image(sources=["upload", "clipboard"], show_label=False, height=CANVAS)
        # preprocess=False passes the original file, which is then decoded, or rejected, as by `jaxclf predict`.
        upload.change(lambda file: file and file["path"], upload, image, preprocess=False)
    return gr.Checkbox(grayscale, label="scale and center the digit as in MNIST", visible=grayscale)


def _add_canvas(page: gr.Blocks, image: gr.State) -> None:
    """Add a canvas with a black brush, which stores the drawing in `image` after each stroke."""
    canvas = gr.Sketchpad(
        type="filepath", format="png", canvas_size=(CANVAS, CANVAS), fixed_canvas=True, layers=False, transforms=(),
        brush=gr.Brush(BRUSH, colors=["#000000"], color_mode="fixed"), show_label=False,
    )  # fmt: skip
    canvas.change(lambda drawing: drawing and drawing["composite"], canvas, image, trigger_mode="always_last")
    gr.on([page.load, canvas.clear], js=SELECT_BRUSH)


def _make_output_image(label: str) -> gr.Image:
    """Return a lossless image component without controls for upload."""
    return gr.Image(format="png", interactive=False, label=label, height=CANVAS + 60, buttons=["fullscreen"])
