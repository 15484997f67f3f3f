"""A spec for a data set, each choice with its reason. Pure.

The reasons are general ones: what the published training of RT-DETR did on MS COCO, carried over to
a data set of another size, with other objects.
"""
