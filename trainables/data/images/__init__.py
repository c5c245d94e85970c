"""Data sets of images: files, preparation, batches on the device."""
