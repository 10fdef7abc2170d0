// Step 5: the largest all-ones rectangles of a mask.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Largest all-ones rectangles of a mask, one after the other. Keeps its memory between masks.
///
/// Dynamic programming over rows: for each pixel, `up` is the number of ones from it upwards, and `left`..`right` the
/// widest range of columns that are ones over all those rows. The largest rectangle is a bar `up` of some pixel of its
/// bottom row, stretched to `left`..`right`, so one pass over the pixels finds it. Every row's state is kept: after a
/// rectangle is cleared, the pass resumes at its top and ends at the first row below it that comes out unchanged.
class RectangleSearch {
   public:
    void start(MaskView mask);

    /// Largest rectangle of ones that are left; of equal ones the smallest y0, then x0, then y1. Empty if none is left.
    Box largest() const;

    void clear(const Box& box);

   private:
    bool update_row(std::size_t y);

    std::size_t height_ = 0;
    std::size_t width_ = 0;
    std::vector<std::uint8_t> mask_;
    std::vector<std::uint16_t> up_, left_, right_;  // one row more than the mask: row 0 is the empty row above it
    std::vector<std::uint16_t> run_start_, run_end_;
    std::vector<std::uint32_t> row_area_;  // largest rectangle with its bottom in each row
};

/// At most `max_candidates` disjoint rectangles, the largest first: each is cleared before the next is sought, until
/// the largest is smaller than `min_area`. Overwrites `candidates`.
void maximal_rectangles(MaskView mask, std::size_t max_candidates, std::int64_t min_area, RectangleSearch& search,
                        std::vector<Box>& candidates);

}  // namespace crosseai::postproc
