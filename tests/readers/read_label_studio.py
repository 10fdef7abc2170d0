"""Print the boxes that Label Studio's SDK validates and exports of FOLDER, ``label_studio.json``."""

import json
import sys
from pathlib import Path

from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

folder = Path(sys.argv[1])
tasks = json.loads((folder / "label_studio.json").read_text())
labels = sorted(
    {region["value"]["rectanglelabels"][0] for task in tasks for region in task["predictions"][0]["result"]}
)
choices = "".join(f'<Label value="{label}"/>' for label in labels)
config = f"""
<View>
  <Image name="image" value="$image"/><RectangleLabels name="label" toName="image">{choices}</RectangleLabels>
</View>
"""
interface = LabelInterface(config)
for number, task in enumerate(tasks):
    for prediction in task["predictions"]:
        errors = interface.validate_prediction(prediction, return_errors=True)
        if errors:
            sys.exit(f"{task}: {errors}")
    task |= {"id": number, "annotations": [{"id": number, "result": task["predictions"][0]["result"]}]}
(folder / "accepted.json").write_text(json.dumps(tasks))
Converter(config, str(folder), download_resources=False).convert_to_coco(
    str(folder / "accepted.json"), str(folder / "coco"), is_dir=False
)
coco = json.loads((folder / "coco" / "result.json").read_text())
names = {image["id"]: Path(image["file_name"]).stem for image in coco["images"]}
categories = {category["id"]: category["name"] for category in coco["categories"]}
boxes = [
    [names[box["image_id"]], categories[box["category_id"]], x, y, x + w, y + h]
    for box in coco["annotations"]
    for x, y, w, h in [box["bbox"]]
]
json.dump(boxes, sys.stdout)
