"""The page of demo.py, and what happens on it; the only file that knows gradio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports] - an extra

from jaxclf import saliency
from jaxclf.cli.one_picture import TOP, answer
from jaxclf.errors import UserError
from jaxclf.inference.preprocess import Preparation
from jaxclf.inference.trained_model import TrainedModel

SHEET = 280  # pixels, a side of what is drawn on
BRUSH = 11  # pixels, half the width of a stroke: as broad, beside a digit, as those of MNIST
# An empty sheet has no tool in hand; its buttons come some time after the page.
TAKE_BRUSH = """() => {
    const tries = setInterval(() => {
        const brush = document.querySelector("[aria-label=Brush]");
        if (brush) { brush.click(); clearInterval(tries); }
    }, 100);
}"""


@dataclass(frozen=True, eq=False)
class Page:
    """What the events of the page are answered with."""

    run: TrainedModel
    methods: Mapping[str, saliency.Method]

    def anew(self, picture: str | None, method: str, center: bool) -> tuple[Any, ...]:
        """All that is shown of a picture: what is to be said of it, classes, the image, the class, its map."""
        return self._shown(picture, method, None, center)

    def map(self, picture: str | None, method: str, target: int, center: bool) -> Any:
        """The map of one class."""
        return self._shown(picture, method, target, center)[-1]

    def _shown(self, picture: str | None, method: str, target: int | None, center: bool) -> tuple[Any, ...]:
        if picture is None:
            return "", None, None, gr.skip(), None
        preparation = Preparation(self.run.image_shape, center=center)
        try:
            found = answer(self.run, preparation, Path(picture), self.methods[method], target)
        except UserError as error:
            raise gr.Error(str(error)) from error
        if isinstance(found, str):
            return found, None, None, gr.skip(), None
        remark = "dark on light, so inverted" if found.inverted else ""
        label = f"what {self.run.class_names[found.target]} owes to the pixels: red raises it, blue lowers it"
        return remark, found.top, found.seen, found.target, gr.Image(found.overlay, label=label)


def opened(run: TrainedModel, methods: Mapping[str, saliency.Method], host: str, port: int) -> gr.Blocks:
    """Open the page at an address; it is served by threads until it is closed."""
    page = layout(Page(run, methods))
    theme = gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("monospace",))
    page.launch(
        server_name=host, server_port=port, share=False, ssr_mode=False, quiet=True, prevent_thread_lock=True,
        theme=theme, footer_links=[], run_history=False,
    )  # fmt: skip
    return page


def layout(asked: Page) -> gr.Blocks:
    """The parts of the page, and which of them answer which."""
    run = asked.run
    name = run.directory.path.absolute().name
    with gr.Blocks(title=f"jaxclf: {name}", analytics_enabled=False) as page:
        gr.Markdown(f"## {name} after {run.step:,} steps")
        with gr.Row():
            with gr.Column():
                picture = gr.State()
                center = sources(page, picture, grey=run.image_shape[2] == 1)
                remark = gr.Markdown()
            with gr.Column():
                top = gr.Label(num_top_classes=TOP, label="classes")
                seen = shown_image("as the network sees it")
            with gr.Column():
                method = gr.Dropdown(list(asked.methods), label="explained by")
                target = gr.Slider(0, len(run.class_names) - 1, step=1, label="class")
                overlay = shown_image("what the class owes to the pixels")
        given = [picture, method, target, center]
        latest: dict[str, Any] = {"trigger_mode": "always_last", "concurrency_id": "network"}
        gr.on(
            [picture.change, center.input], asked.anew, [picture, method, center], [remark, top, seen, target, overlay],
            **latest,
        )  # fmt: skip
        gr.on([method.input, target.input], asked.map, given, overlay, **latest)
    return page


def sources(page: gr.Blocks, picture: gr.State, grey: bool) -> gr.Checkbox:
    """Where pictures come from: their files go into `picture`. Returns whether what is written there is centred."""
    if grey:
        with gr.Tab("Draw"):
            sheet(page, picture)
    with gr.Tab("Picture"):
        dropped = gr.Image(sources=["upload", "clipboard"], show_label=False, height=SHEET)
        # Not preprocessed: the file as it came, which is then read, or refused, as predict.py does it.
        dropped.change(lambda file: file and file["path"], dropped, picture, preprocess=False)
    return gr.Checkbox(grey, label="scale and place what is written as MNIST's digits are", visible=grey)


def sheet(page: gr.Blocks, picture: gr.State) -> None:
    """White paper and a black brush; what is drawn goes into `picture` after each stroke."""
    paper = gr.Sketchpad(
        type="filepath", format="png", canvas_size=(SHEET, SHEET), fixed_canvas=True, layers=False, transforms=(),
        brush=gr.Brush(BRUSH, colors=["#000000"], color_mode="fixed"), show_label=False,
    )  # fmt: skip
    paper.change(lambda drawn: drawn and drawn["composite"], paper, picture, trigger_mode="always_last")
    gr.on([page.load, paper.clear], js=TAKE_BRUSH)


def shown_image(label: str) -> gr.Image:
    """A place for an image, to the pixel."""
    return gr.Image(format="png", interactive=False, label=label, height=SHEET + 60, buttons=["fullscreen"])
