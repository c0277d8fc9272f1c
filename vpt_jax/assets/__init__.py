"""The embedded backbone `vit_nano`, and the images that it was trained on."""
