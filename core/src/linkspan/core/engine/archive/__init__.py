"""Images in tar files: save, load, import."""
