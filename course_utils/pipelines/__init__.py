"""Whole text-to-image systems: the course's own model (`picture_book`), Stable Diffusion v1.5 (`stable_diffusion`), and
the loop in which both draw, by hand (`denoising`); Stable Diffusion 3 and Flux (`rectified_flow_models`), and theirs
(`rectified_flow`). Pictures as codes (`picture_tokens`), and a transformer that draws by them (`dalle`); another
system in two stages, by way of CLIP's embeddings (`unclip`); the first, distilled to one to four evaluations
(`few_steps`). Ways to steer them: from a picture, inside a mask, with other words (`editing`, `attention_maps`),
after a drawing (`control`), and all of that for `generate` (`steering`). Pictures that tile (`tiling`), wide ones
(`panorama`), and in layers that move (`parallax`). Around them: diffusers' schedulers as the
course needs them (`schedulers`), the first system without torch, for a quick start (`quick`), the checks on a model
that is read (`model_folder`), PNG files that remember their settings (`png_info`), and marks that tell where a picture
comes from (`watermark`). What is made with them: pages from incomplete measurements (`reconstruction`), films
(`animation`), catalogues (`catalogue`). How the parts are trained stands in `recipes`, the mathematics of a step in
`diffusion`.
"""
