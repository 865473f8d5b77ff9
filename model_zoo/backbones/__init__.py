"""Image-text-to-text backbones."""
