"""Data sets of other tools, made COCO's as training reads it, with a report of what was changed."""

FORMS = {
    "yolo": "YOLO: a text file for each image",
    "voc": "Pascal VOC: an XML file for each image",
    "cvat": "CVAT's own: an XML file for all images",
    "coco": "COCO, as whatever tool writes it: a JSON file",
    "labelme": "LabelMe: a JSON file for each image",
    "label_studio": "Label Studio's own: a JSON file with a list of tasks",
}
"""The kinds of data sets that can be converted, in the order in which they are tried."""
