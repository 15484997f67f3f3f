"""What is shared by whoever runs a detector: images in, detections out, and what they are worth.

Training, evaluation and deployment use the same definitions, so that their numbers agree.
"""
