"""What runs inside the training container.

process/    `rtdetr`: the command, ranks, stopping, failures
actions/    what the ranks do: one module per action
training/   the loop and what it works with
datasets/   batches of a rank
models/     the RT-DETR network and its weights
losses/     its losses
"""
