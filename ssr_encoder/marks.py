"""A query drawn on its reference picture: a box, a point and the disc that is read, a mask's outline, a text."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from .images import open_mask

COLOUR = (255, 255, 255)
EDGE = (20, 20, 24)  # under the colour, so that marks show on any picture
_FINE = 2  # marks are drawn this much larger, then reduced: clean edges


def font(size: float) -> ImageFont.ImageFont:
    """Pillow's own font at a size in pixels: nothing to install, the same picture everywhere."""
    return ImageFont.load_default(size)


def query_words(query: dict) -> str:
    """Arguments of ``SSREncoder.encode`` in words: the word “fox”, a box, a point, a mask, “bus” in a box."""
    region = next((name for name in ("mask", "box", "point") if query.get(name) is not None), None)
    text = query.get("query")
    if text and region:
        return f"“{text}” {'at' if region == 'point' else 'in'} a {region}"
    return f"the word{'s' if ' ' in text else ''} “{text}”" if text else f"a {region}"


def mark_query(picture: Image.Image, query: dict, side: int = 256, radius: float = 0.1, label: bool = True):
    """The picture at ``side`` pixels (longer side) with its query drawn in.

    Args:
        query: arguments of ``SSREncoder.encode``; coordinates in the picture's pixels.
        radius: of the disc around a point, a fraction of the longer side (``config.point_radius``).
        label: whether to write a text query into the lower left corner.
    """
    factor = side * _FINE / max(picture.size)
    size = (round(picture.width * factor), round(picture.height * factor))
    canvas = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    line = max(2, round(side * _FINE / 90))
    if query.get("mask") is not None:
        canvas = _outline(canvas, open_mask(query["mask"], picture.size), line)
    draw = ImageDraw.Draw(canvas)
    if query.get("box") is not None:
        box = [value * factor for value in query["box"]]
        corner = line * 2.5
        draw.rounded_rectangle([box[0] - line, box[1] - line, box[2] + line, box[3] + line], corner, None, EDGE, line)
        draw.rounded_rectangle(box, corner, None, COLOUR, line)
    if query.get("point") is not None:
        x, y = (value * factor for value in query["point"])
        for reach, width, colour in ((radius * side * _FINE, line, EDGE), (radius * side * _FINE - line, line, COLOUR)):
            draw.ellipse([x - reach, y - reach, x + reach, y + reach], None, colour, width)
        for reach, colour in ((line * 2.6, EDGE), (line * 1.8, COLOUR)):
            draw.ellipse([x - reach, y - reach, x + reach, y + reach], colour)
    if label and query.get("query"):
        canvas = _label(canvas, f"“{query['query']}”", side * _FINE)
    return canvas.resize((round(size[0] / _FINE), round(size[1] / _FINE)), Image.Resampling.LANCZOS)


def _outline(canvas: Image.Image, mask, line: int) -> Image.Image:
    """Dims what is outside the mask and draws a line around what is inside."""
    inside = Image.fromarray((mask * 255).round().astype("uint8")).resize(canvas.size, Image.Resampling.BICUBIC)
    inside = inside.filter(ImageFilter.GaussianBlur(line)).point(lambda v: 255 if v > 127 else 0)
    dim = Image.blend(canvas, Image.new("RGB", canvas.size, EDGE), 0.5)
    out = Image.composite(canvas, dim, inside)
    wide = inside.filter(ImageFilter.MaxFilter(2 * (line // 2) + 1 + 2 * line))
    near = inside.filter(ImageFilter.MaxFilter(2 * (line // 2) + 1 + line // 2 * 2))
    out.paste(EDGE, mask=ImageChops.subtract(wide, near))
    out.paste(COLOUR, mask=ImageChops.subtract(near, inside))
    return out


def _label(canvas: Image.Image, text: str, side: int) -> Image.Image:
    letters = font(side * 0.075)
    pad, gap = side * 0.032, side * 0.04
    width, height = letters.getlength(text) + 2 * pad, side * 0.125
    spot = [gap, canvas.height - gap - height, gap + width, canvas.height - gap]
    plate = canvas.copy()
    ImageDraw.Draw(plate).rounded_rectangle(spot, height / 2, EDGE)
    canvas = Image.blend(canvas, plate, 0.82)
    ImageDraw.Draw(canvas).text((gap + pad, spot[1] + height / 2), text, COLOUR, letters, anchor="lm")
    return canvas
