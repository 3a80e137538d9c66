# --- worlds -----------------------------------------------------------------------------------------------------------
LONG = "if budget(smoke=False, laptop=True, gpu=True):"
swap(worlds, "style-text", ("## Art: a style sheet", "## 2 · Art: a style sheet"))
swap(worlds, "style-sheet", ("STYLES = list(book.STYLES)", "from course_utils.diffusion.editing import lerp\n\nSTYLES = list(book.STYLES)"))
swap(worlds, "tiles-text",
     ("## Games: tiles and sprites", "## 3 · Games: tiles and sprites"),
     (r"""First a number for "does not fit". With $x_k$ column $k$ of an image of width $W$:""",
      r"""First a number for "does not fit". With $\text{col}_j$ column $j$ of an image of $n$ columns:"""),
     (r"\text{step}_k = \operatorname{mean} |x_{k+1} - x_k|", r"\text{step}_j = \operatorname{mean} |\text{col}_{j+1} - \text{col}_j|"),
     (r"\frac{\text{step}_{W-1}}{\operatorname{mean}_{k < W-1} \text{step}_k}, \qquad x_W = x_0 .$$",
      r"\frac{\text{step}_{n-1}}{\operatorname{mean}_{j < n-1} \text{step}_j}, \qquad \text{col}_n = \text{col}_0 .$$"))
swap(worlds, "ring-text",
     ("With weights $w$ (one dimension, three taps):", "In one dimension, with three weights $\\text{tap}_i$:"),
     (r"y_k = w_{-1}\, x_{(k-1) \bmod W} + w_0\, x_k + w_1\, x_{(k+1) \bmod W} .",
      r"\text{out}_j = \text{tap}_{-1}\, \text{in}_{(j-1) \bmod n} + \text{tap}_0\, \text{in}_j + \text{tap}_1\, \text{in}_{(j+1) \bmod n} ."))
swap(worlds, "ring-check", ("x_T, at, told = noise([0])", "from course_utils.pipelines import tiling\n\nx_T, at, told = noise([0])"))
swap(worlds, "sprites-measure", ("def spread(values):", "from course_utils.pipelines import parallax\n\n\ndef spread(values):"))
swap(worlds, "panorama-text",
     ("## Virtual worlds: a wide panorama", "## 4 · Virtual worlds: a wide panorama"),
     (r"With $s_i$ the first column of window $i$ and $w$ a weight for each column of a window:",
      r"With $\text{start}_i$ the first column of window $i$ and $\text{blend}_j$ a weight for column $j$ of a window:"),
     (r"\hat\varepsilon_k = \frac{\sum_i w_{k - s_i}\; \hat\varepsilon^{(i)}_{k - s_i}}{\sum_i w_{k - s_i}},",
      r"\hat\varepsilon_j = \frac{\sum_i \text{blend}_{j - \text{start}_i}\; \hat\varepsilon^{(i)}_{j - \text{start}_i}}{\sum_i \text{blend}_{j - \text{start}_i}},"))
swap(worlds, "windowed",
     ("def windowed(model,", "from course_utils.pipelines import panorama\n\n\ndef windowed(model,"),
     ("steps = torch.stack([first_step", "stepped = torch.stack([first_step"),
     ("average_windows(steps, starts, 28, TAPERED)", "average_windows(stepped, starts, 28, TAPERED)"))
swap(worlds, "ex-shift-text",
     (r"A camera that moves to the left by $m$ pixels sees a layer of depth $d$ (0 far, 1 near) moved to the right by",
      r"A camera that moves to the left by $\text{camera}$ pixels sees a layer, whose depth is from 0 (far) to 1 (near), moved to the right by"),
     (r"$\operatorname{round}(m\, d)$", r"$\operatorname{round}(\text{camera} \cdot \text{depth})$"),
     (r"With a layer's image $x$ and its" + "\n# " + r"cover $\kappa$ (1 where it hides what is behind it), both moved:",
      r"With a layer's image and its" + "\n# " + r"cover (1 where it hides what is behind it), both moved:"),
     (r"\text{out} \leftarrow \kappa\, x + (1 - \kappa)\, \text{out} .",
      r"\text{scene} \leftarrow \text{cover} \cdot \text{layer} + (1 - \text{cover}) \cdot \text{scene} ."))
swap(worlds, "scene",
     ('folder = Path("pictures")\nfolder.mkdir(exist_ok=True)\n', ""), ('folder / "scene.gif"', 'FOLDER / "scene.gif"'),
     ('(folder / "scene.html")', '(FOLDER / "scene.html")'), ("(folder / name).stat()", "(FOLDER / name).stat()"),
     ("words = \"A white cat and", "described = \"A white cat and"), ('"A scene with depth", words)', '"A scene with depth", described)'))
# --- science ----------------------------------------------------------------------------------------------------------
swap(science, "film-text", ("## 2 · Multimedia", "## 5 · Multimedia"))
swap(science, "shop-text", ("## 3 · Shops", "## 6 · Shops"))
swap(science, "measure-text", ("## 1 · Science", "## 7 · Science"),
     (r"$$y = A\,x + \sigma\,n$$", r"$$y_\text{obs} = \mathcal{I}(x) + \sigma_y\,\varepsilon$$"),
     (r"what is measured, $y$, is a linear function $A$ of the image $x$, plus noise $n$ of standard deviation",
      r"what is measured, $y_\text{obs}$, is a linear function $\mathcal{I}$ (the instrument) of the image $x$, plus noise of standard deviation"),
     ("# $\\sigma$. Three", "# $\\sigma_y$. Three"))
swap(science, "posterior-text",
     (r"$p(x_0 \mid y) \propto p(x_0)\,p(y \mid x_0)$", r"$p(x_0 \mid y_\text{obs}) \propto p(x_0)\,p(y_\text{obs} \mid x_0)$"),
     (r"r = \lVert y - A\,D(\hat x_0) \rVert, \qquad g = \nabla_{x_t} r, \qquad",
      r"\text{dist} = \lVert y_\text{obs} - \mathcal{I}(\operatorname{decode}(\hat x_0)) \rVert, \qquad"),
     (r"\mathrm{DDIM}_{\eta=1}(x_t, \hat\varepsilon) - \lambda\,\frac{\max(r - r_\sigma, 0)}{\lVert g \rVert^2}\,g$$",
      r"\operatorname{DDIM}_{\eta=1}(x_t, \hat\varepsilon) - \text{pull}\,\frac{\max(\text{dist} - \text{floor}, 0)}{\lVert \nabla_{x_t} \text{dist} \rVert^2}\,\nabla_{x_t} \text{dist}$$"),
     ("# In words: $D$ is the decoder, so the gradient goes back through the decoder *and* the U-Net. $r_\\sigma =\n# \\sigma\\sqrt{\\text{numbers measured}}$ is",
      "# In words: from the random step of DDIM, subtract a multiple of the gradient of the distance. The gradient goes back through the decoder *and* the U-Net. $\\text{floor} =\n# \\sigma_y\\sqrt{\\text{numbers measured}}$ is"),
     (r"at $\lambda = 1$ a straight line would end exactly at $r_\sigma$.", r"if the distance fell along a straight line, $\text{pull} = 1$ would end exactly at the floor."))
swap(science, "ex-dps", ("def dps_step(", "from course_utils.diffusion import steps\n\n\ndef dps_step("))
swap(science, "classical", ("from course_utils.pipelines import reconstruction\n", "from course_utils.metrics.pictures import psnr\nfrom course_utils.pipelines import reconstruction\n"))
swap(science, "toy",
     ('centres = torch.tensor', 'levels = pipe.scheduler.alphas_cumprod  # alpha_bar, on the CPU\ncentres = torch.tensor'),
     ("mixture_eps(x_t, t, alpha_bar, centres, 0.2)", "mixture_eps(x_t, t, levels, centres, 0.2)"),
     ("times = samplers.trailing_times(1000, 50)", "fifty = samplers.trailing_times(1000, 50)"),
     ("samplers.ddim(two_clouds, x_t, alpha_bar, times, eta=1.0, generator=dice)", "samplers.ddim(two_clouds, x_t, levels, fifty, eta=1.0, generator=dice)"),
     ("zip(times, [*times[1:], -1])", "zip(fifty, [*fifty[1:], -1])"),
     ("    noise = torch.randn(300, 2, generator=dice)\n", "    fresh = torch.randn(300, 2, generator=dice)\n"),
     ("earlier, alpha_bar, lambda x: x[:, :1], torch.ones(300, 1), 0.05, noise)", "earlier, levels, lambda x: x[:, :1], torch.ones(300, 1), 0.05, fresh)"))
swap(science, "pages", ("STEPS = budget", "WALK = budget"), ("steps=STEPS", "steps=WALK"), ("def samples_of", "from tqdm.auto import tqdm\n\n\ndef samples_of") if False else ("WALK = budget", "WALK = budget"))
swap(science, "width-text",
     (r"an interval $\mu \pm 1.28\,s$ would", r"an interval $\text{mean} \pm 1.28\,\text{spread}$ would"),
     (r"have one shape, with $n$ numbers. Return the smallest number $w \ge 0$", r"have one shape. Return the smallest number $\text{width} \ge 0$"),
     (r"for which $\mu \pm w\,s$ holds at least the share `level` of the truth: the $k$-th smallest of $|\text{truth} - \mu| /" + "\n# s$, $k = \\lceil \\text{level}\\cdot n \\rceil$.",
      r"for which $\text{mean} \pm \text{width} \cdot \text{spread}$ holds at least the share `level` of the truth: of all" + "\n" + r"# $|\text{truth} - \text{mean}| / \text{spread}$, the one whose place in the order of size is the share `level` of how many there are, rounded up."))
swap(science, "ex-path", ("from course_utils.diffusion.editing import lerp, slerp\n\n\n", ""))
swap(science, "film", ("from course_utils.pipelines import animation\nfrom course_utils.pipelines.few_steps", "from course_utils.pipelines.few_steps"))
swap(science, "film-draw", ("paths = {", "from tqdm.auto import tqdm\n\npaths = {"))
swap(science, "film-write", ("import tempfile\nfrom pathlib import Path\n\nfolder = Path(tempfile.mkdtemp())\n", ""),
     ('folder / "film.gif"', 'FOLDER / "film.gif"'), ('folder / "film.mp4"', 'FOLDER / "film.mp4"'))
swap(science, "shop", ("from course_utils.models.judge import read\n", ""), ("from course_utils.recipes import load_judge\n", ""), ("read(load_judge(), shaded)", "read(judge, shaded)"))
swap(science, "shop-page", ('(folder / "catalogue.html")', '(FOLDER / "catalogue.html")'))
GLOBAL = [(LONG, "if ENOUGH:")]
swap(science, "film-write", ("(folder / 'film.gif')", "(FOLDER / 'film.gif')"), ("(folder / 'film.mp4')", "(FOLDER / 'film.mp4')"))

swap(science, "posterior-text", ("`floor` is $r_\\sigma$ and `pull` is $\\lambda$. Each\n# sample has its own $r$ and its own $\\lVert g \\rVert$, over all its numbers.", "`floor` and `pull` are those of the equation. Each\n# sample has a distance of its own, and a gradient of its own, whose length is over all its numbers."))
swap(science, "toy",
     ('levels = pipe.scheduler.alphas_cumprod  # alpha_bar, on the CPU\n', ''),
     ('centres = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])', 'centres, levels = torch.tensor([[-1.0, 1.0], [1.0, -1.0]]), pipe.scheduler.alphas_cumprod  # on the CPU'))
science["shop"] = '''# %% [markdown] id="shop-run-text"
# `catalogue.place_product` paints everything but the product by the loop of chapter 12, and `catalogue.add_shadow` draws a
# ring around it again; both put the product back at the end. One seed for each of the eight places.

''' + science["shop"]
science["width-run"] = '''# %% [markdown] id="width-run-text"
# The widths come from the pages apart, with measurements and samples of their own, and are tested on the pages above.

''' + science["width-run"]
worlds["scene"] += '''
# %% [markdown] id="scene-move-text"
# The page itself, within this one. Move the mouse over it, or press the arrow keys after a click:

# %% id="scene-move"
import html

from IPython.display import HTML, Image


def embed(page, title, height):
    """A page of HTML within the notebook."""
    return HTML(f'<iframe srcdoc="{html.escape(page)}" title="{title}" width="100%" height="{height}"></iframe>')


embed((FOLDER / "scene.html").read_text(encoding="utf-8"), described, 420)
'''
swap(science, "film-write", ('assert len(back) == len(films["arc"])', 'assert len(back) == len(films["arc"])\nImage(filename=FOLDER / "film.gif", alt="The film on the arc: a ball becomes a duck, and a meadow a beach at night.")'))
swap(science, "shop-page", ('assert page.count("data:image/png") == 8 and "://" not in page', 'assert page.count("data:image/png") == 8 and "://" not in page\nembed(page, "A catalogue page with a blue teapot in eight places", 420)'))
swap(worlds, "scene-text", (r"The depths of $n$ things are $1/n, 2/n, \dots, 1$, by their order on the page.", "The depths of the things grow in equal steps up to 1, by their order on the page: 1/2 and 1 for two of them."))
