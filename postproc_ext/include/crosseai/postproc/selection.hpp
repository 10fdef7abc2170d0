// Steps 6 and 7: candidates grow, and the brightest one is chosen.
#pragma once

#include <cstddef>
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

/// Which candidates are boxes. What they are compared by is their mean intensity times area^area_power: the paper's
/// rule is area_power 0, which favours small bright boxes; 1 is the sum over the box.
struct SelectionRule {
    double area_power = 0.0;  // beyond the paper
    double score_ratio = 1.0;
    std::int64_t max_boxes = 1;
};

/// A candidate and its score, which is its mean intensity.
struct Selection {
    std::size_t index;
    float score;
};

/// Orders candidates, the best first, the earlier one on a tie. Keeps its memory between maps.
class Selector {
 public:
    /// The best candidate and the next best ones that overlap none before them, as long as they come to `score_ratio`
    /// of the best; at most `max_boxes`. Valid until the next call.
    const std::vector<Selection>& operator()(MapView fused, MaskView mask, const std::vector<Box>& boxes,
                                             const SelectionRule& rule);

 private:
    struct Candidate {
        std::size_t index;
        float score;
        double criterion;
    };
    std::vector<Candidate> candidates_;
    std::vector<Selection> selected_;
};

}  // namespace crosseai::postproc
