"""The studio: all ways of drawing in one page, as users of Stable Diffusion Web UI know it.

`session`, `drawing`, `gallery`, `shelf` and `grid` know no widgets and can be used alone; `painting`, `controls`,
`tabs` and `panel` are the page, of ipywidgets; `app` serves it in a browser. All state is in objects: nothing here is
global, so several studios can be open at once. What draws one picture from settings alone belongs in `pipelines`.
"""
