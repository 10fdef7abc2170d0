#include "crosseai/postproc/selection.hpp"

#include <algorithm>

#include "multiversion.hpp"

namespace crosseai::postproc {
namespace {

using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

CROSSEAI_MULTIVERSION void add_row(const uint16_t* __restrict counts, const uint8_t* __restrict mask,
                                   std::size_t width, uint16_t* __restrict sums) {
    for (std::size_t x = 0; x < width; ++x) sums[x] = static_cast<uint16_t>(counts[x] + mask[x]);
}

CROSSEAI_MULTIVERSION uint32_t sum_of_differences(const uint16_t* upper, const uint16_t* lower, std::size_t width) {
    uint32_t sum = 0;
    for (std::size_t x = 0; x < width; ++x) sum += static_cast<uint16_t>(lower[x] - upper[x]);
    return sum;
}

// In double, so that neither the order of addition nor the instruction set shows in the float score.
CROSSEAI_MULTIVERSION double masked_sum(const float* fused, const uint8_t* mask, std::size_t width) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (std::size_t x = 0; x < width; ++x) sum += static_cast<double>(mask[x] ? fused[x] : 0.0F);
    return sum;
}

}  // namespace

void Expansion::start(MaskView mask) {
    height_ = static_cast<std::int32_t>(mask.height);
    width_ = static_cast<std::int32_t>(mask.width);
    counts_.resize(mask.size() + mask.width);
    std::fill_n(counts_.begin(), mask.width, uint16_t{0});
    for (std::size_t y = 0; y < mask.height; ++y) {
        uint16_t* counts = counts_.data() + y * mask.width;
        add_row(counts, mask.row(y), mask.width, counts + mask.width);
    }
}

std::int64_t Expansion::ones(const Box& box) const {
    const auto row = [&](std::int32_t y) {
        return counts_.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) + box.x0;
    };
    return sum_of_differences(row(box.y0), row(box.y1), static_cast<std::size_t>(box.x1 - box.x0));
}

Box Expansion::operator()(Box box) const {
    for (std::int64_t inside = ones(box);;) {
        const Box grown{std::max(box.x0 - 1, 0), std::max(box.y0 - 1, 0), std::min(box.x1 + 1, width_),
                        std::min(box.y1 + 1, height_)};
        const std::int64_t inside_grown = ones(grown);
        const std::int64_t added_ones = inside_grown - inside;
        const std::int64_t added_zeros = grown.area() - box.area() - added_ones;
        if (grown == box || added_zeros > added_ones) return box;
        box = grown;
        inside = inside_grown;
    }
}

float mean_intensity(MapView fused, MaskView mask, const Box& box) {
    const auto width = static_cast<std::size_t>(box.x1 - box.x0);
    double sum = 0.0;
    for (auto y = static_cast<std::size_t>(box.y0); y < static_cast<std::size_t>(box.y1); ++y)
        sum += masked_sum(fused.row(y) + box.x0, mask.row(y) + box.x0, width);
    return static_cast<float>(sum / static_cast<double>(box.area()));
}

Selection select(MapView fused, MaskView mask, const std::vector<Box>& boxes) {
    Selection best;
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        const float score = mean_intensity(fused, mask, boxes[i]);
        if (best.index < 0 || score > best.score) best = {static_cast<std::ptrdiff_t>(i), score};
    }
    return best;
}

}  // namespace crosseai::postproc
