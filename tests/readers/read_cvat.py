"""Print the boxes that Datumaro reads from FOLDER: ``cvat.xml`` and ``images/``."""

import json
import sys

from datumaro import AnnotationType, Dataset

dataset = Dataset.import_from(sys.argv[1], "cvat")
labels = dataset.categories()[AnnotationType.label]
boxes = [[item.id, labels[box.label].name, *box.points] for item in dataset for box in item.annotations]
json.dump(boxes, sys.stdout)
