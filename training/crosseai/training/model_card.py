"""The model card: what a model is, what it was trained on, how good it is and what it is not for.

Its headings are those of Mitchell et al. 2019 (Model Cards for Model Reporting).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from crosseai.contract import RESEARCH_NOTICE, ModelSpec
from crosseai.training.config import FitConfig
from crosseai.training.dataset import LabelledRadiographs
from crosseai.training.judge import SCALP_MEAN_AUC, WANG_2017_AUC, Evaluation
from crosseai.training.split import PARTS, Split


def model_card(
    spec: ModelSpec,
    config: FitConfig,
    radiographs: LabelledRadiographs,
    split: Split,
    evaluation: Evaluation,
    provenance: Mapping[str, str],
) -> str:
    """Describe a trained model, in Markdown.

    Parameters
    ----------
    spec
        With calibration and operating points.
    split
        Of the radiographs.
    evaluation
        On the test part.
    provenance
        Further facts: data set, split hash, commit.
    """
    network = config.architecture if spec.architecture is not None else "a network of the user's own"
    official = radiographs.held_out is not None
    test = "that which the data set's authors hold out" if official else "drawn at random from the one data set"
    facts = [(name, str(value)) for name, value in {**provenance, **asdict(config)}.items()]
    return f"""# Model card: {spec.name}

**{RESEARCH_NOTICE}** Not cleared or certified for clinical use anywhere.

## Model

A classifier of frontal chest radiographs ({network}, the whole image in gray at {spec.input_size} x {spec.input_size}
pixels) with one probability for each of {len(spec.classes)} diseases. No box label was used in training. Method:
CrossEAI (arXiv 2310.19835) after SCALP (Jaiswal et al. 2021).

## Intended use

Research on the explanation of image classifiers: comparing heat maps, gradient maps and boxes. Not for diagnosis,
triage, screening or any other decision about a patient; not for lateral views, other body parts or other modalities.

## Training and evaluation data

{_data_table(radiographs, split)}

The parts share no patient; the test part is {test}. The best epoch, the calibration and the operating points were
chosen on the validation part.

## Metrics on the test part

{evaluation.images} images of {evaluation.patients} patients; 95 % intervals by bootstrap over patients.

{_metrics_table(spec, evaluation)}

Mean AUC: {evaluation.mean_auc}. Wang et al. 2017 report the AUCs in the last column, and SCALP a mean of
{SCALP_MEAN_AUC}, both on NIH's images: they are comparable with a test on NIH's official test part alone.

## Limits

- Labels of public data sets were mined from reports by software, and some are wrong. Agreement with them is not
  agreement with a radiologist.
- The figures hold for images like those of the test part. Another hospital, device, population or prevalence needs its
  own validation, calibration and operating points.
- A classifier may rely on tubes, markers or positioning instead of the disease. Performance by sex, age and view was
  not measured.
- Boxes show what moved the model's answer, not the extent of a disease.

## Provenance

{_table(("fact", "value"), facts)}
"""


def _data_table(radiographs: LabelledRadiographs, split: Split) -> str:
    def counts(rows: npt.NDArray[np.int64]) -> tuple[str, ...]:
        patients = len({radiographs.patients[row] for row in rows})
        positives = (radiographs.labels[rows] == 1).sum(0).tolist()
        return (str(len(rows)), str(patients), *map(str, positives))

    rows = [(part, *counts(split.rows(part))) for part in PARTS]
    everything = ("all", *counts(np.concatenate([split.rows(part) for part in PARTS])))
    return _table(("part", "images", "patients", *radiographs.classes), [*rows, everything])


def _metrics_table(spec: ModelSpec, evaluation: Evaluation) -> str:
    rows = []
    for (name, figures), point in zip(evaluation.diseases.items(), spec.operating_points, strict=True):
        wang = f"{WANG_2017_AUC[name]:.3f}" if name in WANG_2017_AUC else ""
        measured = (figures.auc, f"{point:.3f}", figures.sensitivity, figures.specificity, figures.brier, wang)
        rows.append((name, str(figures.positives), *map(str, measured)))
    header = ("disease", "positive", "AUC", "operating point", "sensitivity", "specificity", "Brier score", "Wang 2017")
    return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
