"""The phases of training, one module or folder each; `registry` lists them."""
