// Beyond the paper: boxes around the connected components of a mask.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Finds the bounding box of each 8-connected component of ones. Keeps its memory between masks.
///
/// Runs of ones along rows are united with those of the row above that they touch, so that time is linear in pixels.
class Components {
 public:
    /// Overwrites `boxes`, in no particular order.
    void operator()(MaskView mask, std::vector<Box>& boxes);

 private:
    void add_runs(const std::uint8_t* row, std::size_t width, std::int32_t y);
    void unite_touching(std::size_t above, std::size_t here);
    void unite(std::size_t run, std::size_t other);
    std::size_t root(std::size_t run);

    std::vector<Box> runs_;             // one pixel high
    std::vector<Box> extents_;          // of each component, at its root
    std::vector<std::size_t> parents_;  // of each run; a root is its own
};

}  // namespace crosseai::postproc
