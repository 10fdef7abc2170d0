"""From the model's answers to results: boxes for what was explained."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from crosseai.client.inference import Answer, Reply
from crosseai.client.prepare import PreparedImage, failure
from crosseai.contract import BoxParameters, ContractError, Finding, ImageFailure, ImageResult, ModelSpec, ServerError
from crosseai.imaging import box_to_image_px
from crosseai.postproc import localize


@dataclass(frozen=True, slots=True)
class ExplanationMaps:
    """The maps behind one finding: heat map float32 ``[h,w]``, gradient map uint8 ``[S,S]``."""

    heatmap: npt.NDArray[np.float32]
    gradient_map: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """A result with what pictures of it need: where its file lies, and maps, one entry a finding."""

    result: ImageResult
    location: str
    maps: tuple[ExplanationMaps, ...]


Scored: TypeAlias = ScoredImage | ImageFailure


@dataclass(frozen=True, slots=True)
class Localizer:
    """Makes results of answers.

    Parameters
    ----------
    spec, model_version
        The model that answered.
    boxes
        Parameters of the box algorithm.
    """

    spec: ModelSpec
    model_version: str
    boxes: BoxParameters

    def results(self, images: Sequence[PreparedImage], replies: Sequence[Reply]) -> list[Scored]:
        """Boxes for all maps of a group in one call of the C++ core; an image with a NaN fails alone."""
        answers = {i: reply for i, reply in enumerate(replies) if isinstance(reply, Answer) and _is_finite(reply)}
        probabilities = {i: self.spec.probabilities(answer.logits) for i, answer in answers.items()}
        explained = [(i, k) for i, answer in answers.items() for k in range(len(answer.explained))]
        maps = [ExplanationMaps(answers[i].heatmaps[k], answers[i].gradient_maps[k]) for i, k in explained]
        findings: dict[int, list[tuple[Finding, ExplanationMaps]]] = defaultdict(list)
        if maps:
            boxes, scores = localize(
                np.stack([m.heatmap for m in maps]),
                np.stack([m.gradient_map for m in maps]),
                **self.boxes.keywords(),
                threads=1,
            )
            for (i, k), one, box, score in zip(explained, maps, boxes.tolist(), scores.tolist(), strict=True):
                c = int(answers[i].explained[k])
                finding = Finding(
                    disease=self.spec.classes[c],
                    probability=float(probabilities[i][c]),
                    box_image_px=box_to_image_px(tuple(box), self.spec.input_size, images[i].height, images[i].width),
                    box_model_px=tuple(box),
                    score=score,
                )
                findings[i].append((finding, one))
        return [
            self._result(image, probabilities[i], findings[i]) if i in answers else self._failure(image, reply)
            for i, (image, reply) in enumerate(zip(images, replies, strict=True))
        ]

    def _failure(self, image: PreparedImage, reply: Reply) -> ImageFailure:
        if isinstance(reply, ServerError):
            return failure(image.path, reply, "infer")
        reason = f"model version {self.model_version}: expected finite logits and maps, found NaN or infinity"
        return failure(image.path, ContractError(reason), "infer")

    def _result(
        self,
        image: PreparedImage,
        probabilities: npt.NDArray[np.float32],
        findings: Sequence[tuple[Finding, ExplanationMaps]],
    ) -> ScoredImage:
        classes = self.spec.classes
        result = ImageResult(
            image_id=image.image_id,
            path=image.path,
            width=image.width,
            height=image.height,
            model_version=self.model_version,
            probabilities=dict(zip(classes, probabilities.tolist(), strict=True)),
            positive=dict(zip(classes, self.spec.positive(probabilities).tolist(), strict=True)),
            findings=tuple(finding for finding, _ in findings),
            warnings=image.warnings,
        )
        return ScoredImage(result, image.location, tuple(maps for _, maps in findings))


def _is_finite(answer: Answer) -> bool:
    return bool(np.isfinite(answer.logits).all() and np.isfinite(answer.heatmaps).all())
