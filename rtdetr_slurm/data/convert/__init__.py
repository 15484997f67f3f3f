"""Data sets of other tools, made COCO's as training reads it, with a report of what was changed."""

FORMS = {
    "yolo": "YOLO: a text file for each image",
    "voc": "Pascal VOC: an XML file for each image",
    "coco": "COCO, as whatever tool writes it: a JSON file",
}
"""The kinds of data sets that can be converted, in the order in which they are tried."""
