"""Write frames of samples as a GIF, an MP4 (if ffmpeg is installed) and a strip for print."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vistudy.analysis.figures.sample_images import Image, draw_points, tile_images
from vistudy.analysis.ledger.errors import StudyError

PANELS = 8
"""Maximum number of pictures in a strip."""
FRAME_MS, LAST_MS = 100, 2000
"""Duration in ms of a GIF's frame, and of its last frame."""
_BAR = 26
"""Height in pixels of the line under a picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Samples of a trial at one step."""

    step: int
    """Updates of D."""
    samples: np.ndarray
    """Points (n, 2) or images (n, C, H, W)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """Texts of a film, and the frame in which points are drawn."""

    trial_id: str
    what: str
    outcome: str
    limit: float
    modes: np.ndarray | None
    note: str = ""
    """Printed under the strip."""


def write_film(frames: Sequence[Frame], caption: Caption, folder: Path) -> tuple[Path, Path | None, Path]:
    """Write `<trial_id>.gif`, `.mp4` and `-strip.png` into a folder. The second is None without ffmpeg."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [_picture(frame, caption) for frame in frames]
    gif, mp4, strip = (folder / f"{caption.trial_id}{end}" for end in (".gif", ".mp4", "-strip.png"))
    captioned = [_captioned(picture, frame.step, caption) for picture, frame in zip(pictures, frames, strict=True)]
    _write_gif(captioned, gif)
    encoded = _write_mp4(captioned, mp4)
    _write_strip(frames, pictures, caption, strip)
    return gif, mp4 if encoded else None, strip


def _picture(frame: Frame, caption: Caption) -> Image:
    if frame.samples.ndim == 2:
        limit = caption.limit if caption.modes is None else None
        return draw_points(frame.samples, modes=caption.modes, limit=limit)
    return tile_images(frame.samples, size=320)


def _captioned(picture: Image, step: int, caption: Caption) -> Image:
    """Picture with a line under it; height and width are even, as video codecs require."""
    from matplotlib import get_data_path
    from PIL import Image as Pillow
    from PIL import ImageDraw, ImageFont

    height, width, _ = picture.shape
    canvas = np.full((height + _BAR + height % 2, width + width % 2, 3), 255, np.uint8)
    canvas[:height, :width] = picture
    image = Pillow.fromarray(canvas)
    font = ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 13)
    draw = ImageDraw.Draw(image)
    draw.text((4, height + 5), f"{step:,} updates", fill=(16, 20, 24), font=font)
    draw.text((width - 4, height + 5), caption.outcome, fill=(95, 104, 115), font=font, anchor="ra")
    return np.asarray(image)


def _write_gif(pictures: Sequence[Image], path: Path) -> None:
    from PIL import Image as Pillow

    images = [Pillow.fromarray(picture).quantize(64, dither=Pillow.Dither.NONE) for picture in pictures]
    times = [FRAME_MS] * (len(images) - 1) + [LAST_MS]
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0, optimize=True)


def _write_mp4(pictures: Sequence[Image], path: Path) -> bool:
    """Write a video. Returns False without ffmpeg; raises StudyError if ffmpeg fails."""
    program = shutil.which("ffmpeg")
    if program is None:
        return False
    height, width, _ = pictures[0].shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(1000 // FRAME_MS), "-i", "-"]
    # yuv420p: the format that browsers and slides can play.
    coding = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-movflags", "+faststart"]
    done = subprocess.run(
        [program, "-loglevel", "error", "-y", *source, *coding, str(path)],
        input=b"".join(picture.tobytes() for picture in pictures),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise StudyError(f"{path}: ffmpeg failed ({lines[-1]}); the GIF {path.with_suffix('.gif')} is written.")
    return True


def _write_strip(frames: Sequence[Frame], pictures: Sequence[Image], caption: Caption, path: Path) -> None:
    """Write a row of pictures over training time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = min(PANELS, len(frames))
    chosen = sorted({round(i * (len(frames) - 1) / max(1, count - 1)) for i in range(count)})
    high, wide, _ = pictures[0].shape
    side, gap, below = 1.35, 0.06, 0.3 if caption.note else 0.08
    width = max(len(chosen) * (side + gap) + 0.3, 5.6)
    tall = side * high / wide
    figure = Figure(figsize=(width, tall + 0.76 + below), facecolor="white")
    FigureCanvasAgg(figure)
    height = tall + 0.76 + below
    text: dict[str, Any] = {"fontfamily": "DejaVu Sans", "parse_math": False}
    figure.text(0.15 / width, 1 - 0.18 / height, f"{caption.trial_id}: {caption.outcome}", size=9, weight="bold",
                va="center", **text)  # fmt: skip
    figure.text(0.15 / width, 1 - 0.38 / height, caption.what, size=7.5, color="#5f6873", va="center", **text)
    for place, i in enumerate(chosen):
        box = ((0.15 + place * (side + gap)) / width, below / height, side / width, tall / height)
        ax = figure.add_axes(box)
        ax.imshow(pictures[i], interpolation="antialiased", aspect="auto")
        ax.axis("off")
        ax.set_title(f"{frames[i].step:,}{' updates' if place == 0 else ''}", size=7.5, pad=3, **text)
    if caption.note:
        figure.text(0.15 / width, 0.14 / height, caption.note, size=6, color="#c2410c", va="center", **text)
    figure.savefig(path, dpi=200)
