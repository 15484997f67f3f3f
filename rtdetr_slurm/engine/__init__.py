"""What runs inside the container: the RT-DETR model, its losses, and one module per action."""
