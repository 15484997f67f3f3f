"""Images and boxes from COCO folders to batches on the device."""
