// Beyond the paper: gaps in a mask are closed.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Morphological closing of a mask by a square: dilation, then erosion. Keeps its memory between masks.
///
/// What is outside the mask counts as zeros for the dilation and as ones for the erosion, so that a closing only adds
/// ones. A pixel costs as many steps as the radius has binary digits.
class Closing {
 public:
    /// Closes a mask in place. The square's side is 2 r + 1, where r is `share` of the mask's shorter side, rounded.
    void operator()(std::uint8_t* mask, std::size_t height, std::size_t width, double share);

 private:
    void spread(std::size_t step, std::size_t count);

    std::vector<std::uint8_t> plane_, spare_;  // the mask with a margin of 2 r above and on the left
};

}  // namespace crosseai::postproc
