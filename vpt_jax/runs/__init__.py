"""One run, from an experiment to what it leaves behind.

folder   the folder: whose it is, who is at work in it, what was decided at the start
log      metrics.jsonl and TensorBoard
search   the learning rate, where it is to be found first
train    trials trained in a folder, or continued
run      all of it: train, score the test images once, export, report
result   every field of result.json
"""
