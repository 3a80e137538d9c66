# %% [markdown] id="elsewhere"
# ## 8 · What you will read elsewhere
#
# **"Write (word:1.3) to get more of it."** In section 1 a weight of 1.3 changed the winner of no contest, and a word without
# a rival gained nothing from any weight. At 4 nothing recognisable was left.
#
# **"BREAK keeps the colours of two things apart."** Here it lost one of the two things: none of 16 images had both, and 10
# of 16 without it. Such advice may hold for one model and not for another: count before you follow it.
#
# **"[a:b:0.5] draws something half way between a and b."** It drew twelve corgis in twelve images. The late prompt decides
# what is drawn, the early one where.
#
# **"Between two styles lie mixed styles."** Along six lines between four styles, the judge found one clear style at most
# places, and on one line a third style in the middle. A line between hidden states is no line between images.
#
# **"A model can only draw pages of the size that it was trained on."** The panorama is four times as wide, from the same
# weights, by averaging what overlapping windows predict. But it has no plan of the whole: each window knows its own prompt only.
#
# **"The film does not flicker, so it is good."** The cross-fade flickers least, and its frames are double exposures.
#
# **"The reconstruction shows what was there."** Two samples fitted one measurement equally well, and one had a pot where
# the other had a cat. What the instrument has not seen comes from the training data.

# %% [markdown] id="recap"
# ## Recap
#
# | equation | code |
# |:--|:--|
# | brackets multiply, a weight before ")" replaces 1.1 | `read_weights(text)` |
# | $H' = \text{weight}\,H \cdot \operatorname{mean}(H) / \operatorname{mean}(\text{weight}\,H)$ | `weighted_features(hidden, weights)` |
# | $\text{step}_{n-1} / \operatorname{mean}_{j<n-1} \text{step}_j$ | `seam_ratio(pictures)` |
# | $\sum_i \text{blend}\,\hat\varepsilon^{(i)} / \sum_i \text{blend}$, each window at its place | `average_windows(parts, starts, width, weights)` |
# | $\text{scene} \leftarrow \text{cover} \cdot \text{layer} + (1 - \text{cover}) \cdot \text{scene}$, from far to near | `shift_layers(layers, camera)` |
# | all stops, and what `mix` gives between them | `path_of_frames(stops, between, mix)` |
# | the product where the mask is 1 | `put_back(drawn, product, mask)` |
# | DDIM's step minus $\text{pull} \cdot \max(\text{dist} - \text{floor}, 0) / \lVert \nabla_{x_t} \text{dist} \rVert^2$ times the gradient | `dps_step(...)` |
# | the width that holds a share of the errors whose truth is known | `calibrated_width(truth, mean, spread, level)` |
#
# Five sentences to keep: A control of a drawing program is an equation, and what it does can be counted. What a model was not trained for, a
# ring, a wide page, a measurement, can often be had by changing what it is given at each step. Pixels that must
# not change are copied back at the end. A mean over a film or a page hides its worst place. A sample from a prior looks as sure where
# it knows nothing as where it was measured.

# %% [markdown] id="questions"
# **To think about** (open a line for the answer)
#
# <details><summary>1. Why does the Web UI keep the mean of the features, and not their length?</summary>
# There is no deep reason: it keeps the features near what the U-Net knows, in one of several possible ways, and the Web UI
# offers others. Where the mean is near 0, as in our text encoder, the factor means little: it can be anything, which is why it is
# bounded here.
# </details>
# <details><summary>2. A panorama's windows are averaged in the predicted noise. Why not average decoded images of the windows at the end?</summary>
# Then each window would have drawn its own page, with another house at another place, and their mean would be a double
# exposure. Averaging at each step lets the windows agree while everything is still open.
# </details>
# <details><summary>3. An interval was calibrated on pages of the picture book, and holds 80% there. Will it hold 80% of photographs?</summary>
# Nobody knows before it is tested on photographs: the guarantee is for cases of the same kind as those that it was calibrated on.
# </details>
# <details><summary>4. The product in the shop is exact. Does the catalogue show what the customer will get?</summary>
# Its pixels are those of the product. Its size, the light on it, its shadow and what lies beside it are the model's, and a
# second teapot that looks out behind it does not exist. Say on the page that the places are generated.
# </details>
#
# **Papers** MultiDiffusion: Bar-Tal et al., [arXiv:2302.08113](https://arxiv.org/abs/2302.08113). Diffusion posterior
# sampling: Chung et al., [arXiv:2209.14687](https://arxiv.org/abs/2209.14687). Split conformal prediction, an
# introduction: Angelopoulos & Bates, [arXiv:2107.07511](https://arxiv.org/abs/2107.07511). Image to image: Meng et al.,
# [arXiv:2108.01073](https://arxiv.org/abs/2108.01073). Line drawings: Zhang et al., [arXiv:2302.05543](https://arxiv.org/abs/2302.05543).
# The program: [Stable Diffusion Web UI](https://github.com/AUTOMATIC1111/stable-diffusion-webui).

# %% id="progress"
progress()

# %% [markdown] id="bonus"
# ## Bonus: a project of your own
#
# Take one thing that you want to have drawn: a calendar, a board game, the cover of a school magazine. Write down before
# the first image what it must keep, what it must follow, and by which number you will know. Draw it in the studio, and
# keep all images, not only the good ones: the gallery keeps them with their settings. Then count.
