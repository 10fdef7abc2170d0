#include "crosseai/postproc/candidates.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace crosseai::postproc {
namespace {

std::int64_t least_area(MaskView mask, const CandidateRule& rule) {
    const double share = std::ceil(rule.min_area_share * static_cast<double>(mask.size()));
    return std::max(rule.min_area, static_cast<std::int64_t>(share));
}

void keep_largest(std::size_t count, std::int64_t min_area, std::vector<Box>& boxes) {
    const auto small = [=](const Box& box) { return box.area() < min_area; };
    boxes.erase(std::remove_if(boxes.begin(), boxes.end(), small), boxes.end());
    count = std::min(count, boxes.size());
    const auto precedes = [](const Box& a, const Box& b) {
        return std::tuple(-a.area(), a.y0, a.x0, a.y1) < std::tuple(-b.area(), b.y0, b.x0, b.y1);
    };
    std::partial_sort(boxes.begin(), boxes.begin() + static_cast<std::ptrdiff_t>(count), boxes.end(), precedes);
    boxes.resize(count);
}

}  // namespace

void CandidateSearch::operator()(MaskView mask, const CandidateRule& rule, std::vector<Box>& candidates) {
    const auto count = static_cast<std::size_t>(rule.max_candidates);
    const std::int64_t min_area = least_area(mask, rule);
    if (rule.kind == Candidates::greedy) return maximal_rectangles(mask, count, min_area, greedy_, candidates);
    if (rule.kind == Candidates::components)
        components_(mask, candidates);
    else
        all_(mask, candidates);
    keep_largest(count, min_area, candidates);
}

}  // namespace crosseai::postproc
