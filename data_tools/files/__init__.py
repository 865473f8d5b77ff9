"""Files of datasets: their paths, their images, and folders that appear whole."""
