"""Image files -> the pixels that a model sees.

`listing` finds the files, `packed` those in tars and Parquet, `stored` those in a store; `decoding` makes any of them
8-bit RGB, `ops` and `views` are the registered functions that a preprocess recipe names, `upscale` runs
super-resolution networks, `specimens` draws odd pictures. Start with `ops`. Imports core and recipes.
"""
