// Steps 6 and 7: candidates grow, and the brightest one is chosen.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Grows boxes on a mask. Keeps its memory between masks.
class Expansion {
 public:
    void start(MaskView mask);

    /// Grows a box by one pixel on every side at once, sides at the border staying, until the newly added ring has
    /// more zeros than ones (it is not kept) or nothing can be added.
    Box operator()(Box box) const;

 private:
    std::int64_t ones(const Box& box) const;

    std::int32_t height_ = 0;
    std::int32_t width_ = 0;
    std::vector<std::uint16_t> counts_;  // [height + 1, width]: ones in the column above each row
};

/// Mean of the fused map over a box, pixels outside the mask counting as zero.
float mean_intensity(MapView fused, MaskView mask, const Box& box);

/// A candidate and its score; index -1 and score 0 when there is none.
struct Selection {
    std::ptrdiff_t index = -1;
    float score = 0.0F;
};

/// Candidate of highest mean intensity times area^area_power, the earlier one on a tie.
///
/// The paper's rule is area_power 0, which favours small bright boxes; 1 is the sum over the box. The score is the
/// mean.
Selection select(MapView fused, MaskView mask, const std::vector<Box>& boxes, double area_power);

}  // namespace crosseai::postproc
