// Beyond the paper: every maximal rectangle of a mask.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Finds every all-ones rectangle that lies in no larger one. Keeps its memory between masks.
///
/// For each bottom row a stack of histogram bars yields the rectangles that cannot grow upwards or sideways; those
/// whose columns are all ones in the next row, too, are dropped. Time is linear in pixels, and so is the number of
/// rectangles.
class MaximalRectangles {
 public:
    /// Overwrites `boxes`, in no particular order.
    void operator()(MaskView mask, std::vector<Box>& boxes);

 private:
    void add_row(const std::uint8_t* row_below, std::size_t width, std::int32_t bottom, std::vector<Box>& boxes);

    struct Bar {
        std::int32_t left;
        std::int32_t height;
    };
    std::vector<std::int32_t> heights_;  // ones in each column from the row at hand upwards
    std::vector<Bar> open_;              // bars that may go on to the right, heights increasing
};

}  // namespace crosseai::postproc
