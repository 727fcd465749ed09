import base64
import io
import re

import numpy as np
from PIL import Image

from nasray.reports.pictures import SIDE, figure, resized


def test_pictures_are_small_and_within_the_page():
    image, scale = resized(np.full((3, 2 * SIDE, SIDE // 3), 200, dtype=np.uint8))
    assert (image.shape, scale) == ((3, SIDE, SIDE // 6), 0.5)
    html = figure(image, "<b>")
    assert "<figcaption>&lt;b&gt;</figcaption>" in html
    content = base64.b64decode(re.search(r'src="data:image/jpeg;base64,([^"]*)"', html)[1])
    assert Image.open(io.BytesIO(content)).size == (SIDE // 6, SIDE)
