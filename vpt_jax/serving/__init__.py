"""Using what was tuned.

load        an export or a run to a `Classifier`: which seed, which precision
exported    the exports below a folder, by name
classifier  one tuned model: images to probabilities
bank        many tuned tasks on one backbone; `shelf`: those that share a program;
            `tasks`: what each makes of its images
attention   where a network looks
segmenter   one that gives each pixel a class
evaluate    a tuned model on the test images of its task
predict     image files to a table of predictions, of one task or of many
paint       labelled images as masks and overlays
serve       a bank over HTTP: `app` has the routes, `protocol` what is said, `batcher`
            what waits together, `metrics` what is counted, `page` what a browser asks
"""
