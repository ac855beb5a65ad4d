"""Measure peak memory and data wait of training on streamed folders of 2,000 and 20,000 generated images.

python benchmarks/folder_memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
CLASSES = 10
CONFIG = """
from jaxclf.config import Config
from jaxclf.datasets import ImageFolder
from jaxclf.models import SimpsonsCnn
from jaxclf.optimizers import Adam


def get_config():
    return Config(
        dataset=ImageFolder("images", keep_mib={keep_mib}),
        model=SimpsonsCnn(classes=10),
        optimizer=Adam(learning_rate=1e-3),
        epochs=1,
        batch_size=64,
    )
"""


def write_image(path: Path, seed: int) -> None:
    """Write a JPEG of 320x240 pixels with blurred random colors."""
    colors = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(colors).resize((320, 240), Image.Resampling.BICUBIC).save(path, quality=85)


def make_folder(root: Path, count: int) -> None:
    """Write `count` images in ten classes."""
    for label in range(CLASSES):
        (root / f"class_{label}").mkdir(parents=True)
    with ThreadPoolExecutor() as threads:
        paths = [root / f"class_{i % CLASSES}" / f"{i:06d}.jpg" for i in range(count)]
        list(threads.map(write_image, paths, range(count)))


def measure(count: int, keep_mib: int) -> dict[str, float]:
    """Train one epoch in a subprocess; return its peak memory, its speed and the fraction of time spent on waiting."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_folder(root / "images", count)
        (root / "folder.py").write_text(CONFIG.format(keep_mib=keep_mib))
        command = [sys.executable, str(ROOT / "train.py"), "folder.py"]
        process = subprocess.Popen(
            command, cwd=root, env=os.environ | {"XDG_CACHE_HOME": directory}, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        summary = json.loads((root / "runs/folder/summary.json").read_text())
    return {
        "peak_mib": usage.ru_maxrss / 1024,
        "images_per_second": summary["images_per_second"],
        "data_wait": summary["data_wait_seconds"] / summary["train_seconds"],
    }


def main() -> None:
    """Print one line per folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[2_000, 20_000], help="images of each folder")
    parser.add_argument("--keep-mib", type=int, default=0, help="cache for decoded images; 0: stream")
    options = parser.parse_args()
    for count in options.counts:
        row = measure(count, options.keep_mib)
        print(
            f"{count:>7,} images: peak {row['peak_mib']:,.0f} MiB, {row['images_per_second']:,.0f} images/s, "
            f"{row['data_wait']:.1%} of the time waiting for data",
            flush=True,
        )


if __name__ == "__main__":
    main()
