"""Using what was tuned.

load        an export or a run to a `Classifier`: which seed, which precision
classifier  one tuned model: images to probabilities
segmenter   one that gives each pixel a class
evaluate    a tuned model on the test images of its task
predict     image files to a table of predictions
paint       labelled images as masks and overlays
"""
