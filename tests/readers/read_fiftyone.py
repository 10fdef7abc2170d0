"""Print the boxes that FiftyOne's importer reads from FOLDER: ``fiftyone.json`` and ``images/``."""

import json
import sys
from pathlib import Path

from fiftyone.core.metadata import ImageMetadata
from fiftyone.utils.data.importers import FiftyOneImageDetectionDatasetImporter

folder = Path(sys.argv[1])
importer = FiftyOneImageDetectionDatasetImporter(data_path=folder / "images", labels_path=folder / "fiftyone.json")
boxes = []
with importer:
    for path, _, label in importer:
        image = ImageMetadata.build_for(path)
        for detection in label.detections if label else ():
            x, y, w, h = detection.bounding_box
            edges = (x * image.width, y * image.height, (x + w) * image.width, (y + h) * image.height)
            boxes.append([Path(path).stem, detection.label, *edges])
json.dump(boxes, sys.stdout)
