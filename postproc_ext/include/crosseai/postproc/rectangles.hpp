// Step 5: the largest all-ones rectangles of a mask.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Largest all-ones rectangles of a mask, one after the other. Keeps its memory between masks.
///
/// Dynamic programming over rows. For each pixel `up` is the number of ones from it upwards, and `left` and `right` are
/// how far those ones reach sideways in every row of that bar. The largest rectangle is the widened bar of some pixel
/// in its bottom row, so one pass over the pixels finds it. The state of every row is kept: when a rectangle is
/// cleared, only the columns that it touches are updated, from its top down to the first row that stays as it was.
class RectangleSearch {
 public:
    void start(MaskView mask);

    /// Largest rectangle of ones that are left; of equal ones the smallest y0, then x0, then y1. Empty if none is left.
    Box largest();

    void clear(const Box& box);

 private:
    struct Columns {
        std::size_t begin;
        std::size_t end;
    };
    bool update(std::size_t y, Columns columns);
    std::uint32_t row_area(std::size_t y) const;
    std::uint32_t largest_area();

    std::size_t height_ = 0;
    std::size_t stride_ = 0;  // width rounded up to whole blocks; the rest of each row is zeros
    std::vector<std::uint8_t> mask_;
    std::vector<std::uint16_t> up_, left_, right_;     // one row more than the mask: the empty row above it
    std::vector<std::uint16_t> run_left_, run_right_;  // ones on either side of each pixel in the row at hand
    std::vector<std::uint32_t> row_area_;  // largest rectangle with its bottom in each row; an upper bound where stale
    std::vector<std::uint8_t> stale_;
};

/// At most `max_candidates` disjoint rectangles, the largest first: each is cleared before the next is sought, until
/// the largest is smaller than `min_area`. Overwrites `candidates`.
void maximal_rectangles(MaskView mask, std::size_t max_candidates, std::int64_t min_area, RectangleSearch& search,
                        std::vector<Box>& candidates);

}  // namespace crosseai::postproc
