# %% [markdown] id="title"
# # 12
