"""Images and boxes from COCO folders to batches of a rank."""
