"""The options of every command that needs no config, as dataclasses for tyro.

Nothing here imports JAX: `jaxclf COMMAND --help` and a mistyped flag are answered at once. The options of `train`
follow from its config; see `train_options.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
CompilationCache = Annotated[
    str,
    tyro.conf.arg(
        metavar="DIR",
        help="Directory of compiled programs to read and write; auto: one in the user's cache; off: none are kept.",
    ),
]
Imports = Annotated[tuple[str, ...], tyro.conf.arg(name="import", metavar="MODULE …")]
DatasetArguments = tyro.conf.Suppress[tuple[str, ...]]
SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of the commands that use a trained run."""

    run: Annotated[Path, tyro.conf.Positional]
    """Directory of a run or of a bundle, or the name of a package of weights, such as lite0."""
    checkpoint: str = "last"
    """Checkpoint to load: last, best (by validation accuracy) or a step."""
    weights: Literal["ema", "raw"] = "ema"
    """Exponential moving average of the parameters, where the run keeps one, or the parameters themselves."""
    compilation_cache: CompilationCache = "auto"
    imports: Imports = ()
    """Your own modules that define classes of the config."""
    debug: Flag = False
    """Show the traceback of a user error."""


@dataclass(frozen=True, kw_only=True)
class DataRunOptions(RunOptions):
    """Options of the commands that use the data of a run."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of what is written; without it, that of the run."""
    dataset: DatasetArguments = ()
    """Options such as --dataset.root, which are parsed when the run is loaded."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions(DataRunOptions):
    """Evaluate a run on every image of a split. Writes evaluation.json, predictions.csv, figures and report.html.

    The fields of its dataset are options too: `--dataset.root DIR`, after the run, evaluates images elsewhere.
    """

    split: SplitName = "test"
    """Split to evaluate."""
    tta: Literal["flip", "shifts"] | None = None
    """Test-time augmentation: mean of the logits over each image and its mirror image; shifts: also by one pixel."""
    top: int = 5
    """Also measure how often the label is among this many most probable classes."""
    batch_size: int | None = None
    """Images per batch, which does not change the result; without it, the config's eval_batch_size."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(DataRunOptions):
    """Compute saliency maps of a run's predictions. Writes explanations.npz, explanations.json and figures.

    Without images, those of a split are explained. The fields of a method are options too: `--methods lrp --help` lists
    those of lrp. So are those of the dataset: `--dataset.root DIR`, after the run, reads its images elsewhere.
    """

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[IMAGES …]")] = ()
    """Image files, folders or quoted patterns to explain, instead of images of a split."""
    methods: tuple[str, ...] = ()
    """Names of saliency methods, or all; without any, a few fast methods that suit the network."""
    split: SplitName = "test"
    """Split to explain."""
    limit: int = 10
    """Number of images, 0 for all: the first ones, or a random choice where the split is sorted by class."""
    all_classes: Flag = False
    """Explain every class, not only the predicted one."""
    measures: Flag = False
    """Evaluate the maps: completeness, sparsity, faithfulness, robustness."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(RunOptions):
    """Predict the classes of image files. Writes one row per image to standard output.

    The exit code is 0 if every image was predicted and 4 if some could not be read.
    """

    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES …")]
    """Image files, folders, quoted patterns, or - for a list of them on standard input, one per line."""
    top: int = 1
    """Number of classes to write per image, most probable first."""
    format: Literal["csv", "jsonl"] = "csv"
    """A table with a header, or one JSON object per line."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """For networks of grayscale images: invert the image; auto inverts images that are dark on light."""
    center: Flag = False
    """For networks of grayscale images: scale and center the handwritten digit, as in MNIST."""
    explain: Annotated[str | None, tyro.conf.arg(metavar="METHOD")] = None
    """Draw a saliency map of each prediction with this method, such as integrated-gradients."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of these drawings; without it, predictions/ in the run."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(RunOptions):
    """Export the network as files that do not need jaxclf: StableHLO, safetensors, config, checksums, model card."""

    format: Literal["jaxclf", "torch"] = "jaxclf"
    """A program and weights for JAX; torch: weights that torchvision's or timm's module of the network loads."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """A new or empty directory, or that of an earlier export; without it, export/ or export_torch/ in the run."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions(RunOptions):
    """Serve a page on this machine where the run classifies drawings and images; stop it with Ctrl-C."""

    port: int = 7860
    """Port on 127.0.0.1."""


@dataclass(frozen=True)
class DataOptions:
    """Print the shapes, classes and pixel values of a config's dataset and draw some of its images.

    The fields of the dataset are options too: `--dataset.root DIR`, after the config.
    """

    config: Annotated[str, tyro.conf.Positional]
    """A Python file with get_config(), or the name of a built-in config."""
    output: Path | None = None
    """Directory of the figures; without it, runs/NAME/dataset."""
    seed: int = 0
    """Seed of the random choice of images."""
    augmented: Flag = False
    """Draw training images beside what the augmentations of the config make of them."""
    dataset: DatasetArguments = ()
    """Options such as --dataset.root, which are parsed when the config is read."""
    debug: Flag = False
    """Show the traceback of a user error."""


@dataclass(frozen=True)
class ReportOptions:
    """Write the page of a run from its files and images, or compare several finished runs on one page.

    The fields of the dataset of one run are options too: `--dataset.root DIR`, after the run, reads images elsewhere.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Directory of a run, or directories of several."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of the page, or an .html file; without it, report.html in the run, or comparison.html here."""
    dataset: DatasetArguments = ()
    """Options such as --dataset.root, which are parsed when the run is loaded."""
    compilation_cache: CompilationCache = "auto"
    imports: Imports = ()
    """Your own modules that define classes of the config."""
    debug: Flag = False
    """Show the traceback of a user error."""


@dataclass(frozen=True)
class BenchmarkOptions:
    """Train configs x settings x seeds, each in its own process, and tabulate the results.

    Started again, it runs only what is not finished.
    """

    configs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG …")]
    """Python files with get_config(), or names of built-in configs."""
    seeds: int = 1
    """Number of seeds: 0, 1, 2, …"""
    fields: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set", metavar="FIELD=VALUE,… …")
    ] = ()
    """Fields of the configs and their values, in every combination; for a tuple: model.features="16 36,8 8"."""
    sample: int | None = None
    """Random search: the number of settings to draw from those of --set, where field=log:low:high is a range."""
    choose: Flag = False
    """Search: choose the best setting by validation, and report test results of that one only."""
    folds: int = 0
    """Cross-validation on image folders: seed i has fold i modulo this number for validation, and trains on the others;
    the number of seeds is a multiple of it (0: off)."""
    compare: tuple[str, str] | None = None
    """Paired comparison of two rows of the tables, by seed."""
    lr_range: Annotated[tuple[float, float] | tuple[()] | None, tyro.conf.arg(metavar="[LOW HIGH]")] = None
    """Run a learning-rate range test of each config and setting instead of the benchmark."""
    jobs: int = 1
    """Number of runs at a time on one machine. Speeds compare only between runs with the same number."""
    ray: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[ADDRESS]")] = None
    """Run on a Ray cluster with a shared file system (without an address: a cluster on this machine)."""
    retry: Flag = False
    """Run failed runs again."""
    out: Path = Path("runs/benchmark")
    """Directory of the tables and of the runs."""
    imports: Imports = ()
    """Your own modules that define classes of the configs."""
    debug: Flag = False
    """Show the traceback of a user error."""

    @property
    def is_search(self) -> bool:
        """Whether a setting is chosen by validation, so that test results stay hidden until then."""
        return self.choose or self.sample is not None


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Import the weights of a published network as a bundle, which the other commands take like a run.

    Nothing in the file is executed. Every tensor has to be used and every variable filled. Writes certificate.json.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A .safetensors file or its index, a .pth file of PyTorch, or the name of a package of weights, such as lite0."""
    workdir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """A new or empty directory for the bundle."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NETWORK")] = None
    """The network of the weights, such as resnet50, vit-s16 or convnext-t; that of a package is known."""
    class_names: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A text file with one class name per line; without it, those of ImageNet for 1,000 classes."""
    compare: Annotated[tuple[str, ...], tyro.conf.arg(metavar="IMAGES …")] = ()
    """Images to compare the network with PyTorch on, which has to be installed with the library of the weights."""
    debug: Flag = False
    """Show the traceback of a user error."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Options of the commands that use pretrained weights on the images of a folder."""

    folder: Annotated[str, tyro.conf.Positional]
    """Directory with a folder for each class, or with folders such as train and val that have them."""
    bundle: Annotated[Path, tyro.conf.arg(metavar="BUNDLE")]
    """Directory of a bundle or of a run, or the name of a package of weights, such as lite0."""
    workdir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """A new or empty directory for the results."""
    dataset: DatasetArguments = ()
    """Options such as --dataset.min-images, which are parsed when the bundle is loaded."""
    compilation_cache: CompilationCache = "auto"
    imports: Imports = ()
    """Your own modules that define classes of the config of a run."""
    debug: Flag = False
    """Show the traceback of a user error."""


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(FolderOptions):
    """Classify the images of a folder by features of pretrained weights: linear probes and nearest neighbors.

    Features are computed once and kept in the user's cache. Everything is chosen by cross-validation within the
    training images. Writes summary.json, predictions.csv, learning_curve.png and probe.html.
    """

    folds: int = 5
    """Folds of cross-validation."""
    seeds: int = 5
    """Draws of the folds, and of the subsets of the learning curve."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions(FolderOptions):
    """Find likely label errors, near-duplicates and outliers among the images of a folder by features of a network.

    The images of all splits are compared. Features are computed once and kept in the user's cache. Writes audit.html,
    audit.csv, duplicates.csv and summary.json.
    """

    folds: int = 5
    """Folds of cross-validation."""
    similarity: float = 0.75
    """Cosine similarity of centered features from which two images are near-duplicates."""
    neighbors: int = 10
    """Number of nearest images whose mean cosine distance is the outlier score of an image."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSaliencyOptions:
    """Score saliency methods on runs of drawn characters against the exact Shapley values of the parts of images.

    Started again, it does not repeat methods that are finished. The fields of a method are options too: `--methods
    rise --help` lists those of rise. Writes parts.json, parts.csv and parts.html.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN …")]
    """Directories of runs, such as several seeds of a config."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Directory of what is written."""
    images: int = 36
    """Number of images: one of each character, then a second one of each, and so on."""
    methods: tuple[str, ...] = ("all",)
    """Names of saliency methods, or all."""
    compilation_cache: CompilationCache = "auto"
    imports: Imports = ()
    """Your own modules that define classes of the configs."""
    debug: Flag = False
    """Show the traceback of a user error."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(FolderOptions):
    """Train pretrained weights on the images of a folder and evaluate them. Started again, the run resumes.

    The last layer is fitted first, then all layers are trained. What is not given follows from the number of images,
    and is printed with its reason.
    """

    workdir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Directory of the run."""
    epochs: int | None = None
    """Number of passes over the training images."""
    batch_size: int | None = None
    """Number of images per update."""
    learning_rate: float | None = None
    """Peak learning rate of the last layer. Each layer before it has 0.75 times the rate of the next one, if the model
    declares its layers."""
    seed: int = 0
    """Random seed of shuffling, augmentation and the folds."""
    parallel: Literal["jit", "pmap"] = "jit"
    """Compile the step with jit over a mesh of all devices, or with pmap."""
    dry_run: Flag = False
    """Print what would be trained, run one step, and exit. Writes only features, to the cache."""


@dataclass(frozen=True)
class ModelsOptions:
    """List the published networks: parameters, FLOPs of the forward pass per image, and image size."""

    classes: int = 1_000
    """Number of classes."""
