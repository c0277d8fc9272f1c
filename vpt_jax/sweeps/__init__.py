"""The paper's protocol: try a grid, choose on the validation images, test once.

grids      what the public code tries for which method
plan       a sweep as units (one compiled program each) of chunks of trials
records    the folder: plan, finished trials, locks
selection  the winner, and the only way to the test images
unit       the training of a unit, chunk by chunk
run        all of it, one job after another
"""
