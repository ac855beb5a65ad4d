"""Small pictures in folders."""

import io

from PIL import Image


def png(value, size=(4, 4)):
    content = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(content, "png")
    return content.getvalue()


def write(root, counts, value=0):
    """Pictures, each of a grey of its own behind `value`, in classes of the given sizes."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i:03d}.png").write_bytes(png(value := value + 1))
    return root
