// Step 5: the boxes of a mask among which one is chosen.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/components.hpp"
#include "crosseai/postproc/maximal.hpp"
#include "crosseai/postproc/rectangles.hpp"
#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

enum class Candidates : std::uint8_t {
    greedy,      // the largest rectangle of ones; it is cleared; the largest of what is left; and so on
    components,  // bounding boxes of the 8-connected components
    all,         // every rectangle of ones that lies in no larger one; they overlap
};

/// Which boxes are candidates; the defaults are those of arXiv 2310.19835 as the design reads it.
struct CandidateRule {
    Candidates kind = Candidates::greedy;
    std::int64_t max_candidates = 8;
    std::int64_t min_area = 1;    // pixels
    double min_area_share = 0.0;  // of the mask's area
};

/// Finds the candidates of a mask, the largest first; of equal ones the smallest y0 comes first, then x0, then y1.
/// Keeps its memory between masks.
class CandidateSearch {
 public:
    void operator()(MaskView mask, const CandidateRule& rule, std::vector<Box>& candidates);

 private:
    RectangleSearch greedy_;
    Components components_;
    MaximalRectangles all_;
};

}  // namespace crosseai::postproc
