"""The picture-book model in a reader's browser: a box to draw with, on any page of a static site.

`export` writes a pipeline's networks as ONNX, and one JSON with all else that the page needs; `assets` puts them, ONNX
Runtime Web and the scripts into a folder. The scripts are plain ES modules, which node runs too: `draw.js` is the box,
`worker.js` loads the networks and draws beside the page, by `painter.js`; `weights.js` widens what travels in float16;
`attention.js` shows where a picture attended to a word; and `tokenizer.js`, `prompts.js`, `noise.js`, `sampler.js`,
`settings.js` and `png.js` do what `text/tokens.py`, `text/prompts.py`, torch's generator, diffusers' UniPC and
`pipelines/png_info.py` do, to the same picture; `chinese.js` does what `data/picture_book/chinese.py` does, by its
tables. All that the box says is in `words.js` in Chinese too. What draws with torch does not belong here.
"""


def write_box(folder, model=None):
    """Write all that draws in a browser into `folder`, below any address of a static site; see `assets.write_box`."""
    from course_utils.web import assets

    assets.write_box(folder, model)
