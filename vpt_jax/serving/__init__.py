"""Using what was tuned.

load        an export or a run to a `Classifier`: which seed, which precision
classifier  one tuned model: images to probabilities
evaluate    a tuned model on the test images of its task
predict     image files to a table of predictions
"""
