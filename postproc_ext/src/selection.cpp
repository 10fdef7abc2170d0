#include "crosseai/postproc/selection.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "multiversion.hpp"

namespace crosseai::postproc {
namespace {

using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

CROSSEAI_MULTIVERSION void add_row(const uint16_t* __restrict counts, const uint8_t* __restrict mask, std::size_t width,
                                   uint16_t* __restrict sums) {
    for (std::size_t x = 0; x < width; ++x) sums[x] = static_cast<uint16_t>(counts[x] + mask[x]);
}

CROSSEAI_MULTIVERSION uint32_t sum_of_differences(const uint16_t* upper, const uint16_t* lower, std::size_t width) {
    uint32_t sum = 0;
    for (std::size_t x = 0; x < width; ++x) sum += static_cast<uint16_t>(lower[x] - upper[x]);
    return sum;
}

// Column by column within a strip: vectorised, and in the same order on every CPU.
CROSSEAI_MULTIVERSION double masked_sum(const float* fused, const uint8_t* mask, std::size_t stride, std::size_t height,
                                        std::size_t width) {
    constexpr std::size_t strip = 64;
    double sum = 0.0;
    for (std::size_t x = 0; x < width; x += strip) {
        const std::size_t columns = std::min(strip, width - x);
        float sums[strip] = {};
        for (std::size_t y = 0; y < height; ++y)
            for (std::size_t i = 0; i < columns; ++i)
                sums[i] += fused[y * stride + x + i] * static_cast<float>(mask[y * stride + x + i]);
        sum = std::accumulate(sums, sums + columns, sum);
    }
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
    const std::size_t first = static_cast<std::size_t>(box.y0) * fused.width + static_cast<std::size_t>(box.x0);
    const double sum = masked_sum(fused.data + first, mask.data + first, fused.width,
                                  static_cast<std::size_t>(box.y1 - box.y0), static_cast<std::size_t>(box.x1 - box.x0));
    return static_cast<float>(sum / static_cast<double>(box.area()));
}

const std::vector<Selection>& Selector::operator()(MapView fused, MaskView mask, const std::vector<Box>& boxes,
                                                   const SelectionRule& rule) {
    candidates_.clear();
    for (std::size_t i = 0; i < boxes.size(); ++i) {
        const auto here = boxes.begin() + static_cast<std::ptrdiff_t>(i);
        if (std::find(boxes.begin(), here, *here) != here) continue;  // expansion often ends in the same box
        const float score = mean_intensity(fused, mask, boxes[i]);
        const double size = std::pow(static_cast<double>(boxes[i].area()), rule.area_power);
        candidates_.push_back({i, score, static_cast<double>(score) * size});
    }
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
        return a.criterion > b.criterion || (a.criterion == b.criterion && a.index < b.index);
    });
    selected_.clear();
    for (const Candidate& candidate : candidates_) {
        if (selected_.size() == static_cast<std::size_t>(rule.max_boxes)) break;
        if (candidate.criterion < rule.score_ratio * candidates_.front().criterion) break;
        const auto overlaps = [&](const Selection& other) {
            return boxes[candidate.index].overlaps(boxes[other.index]);
        };
        if (std::any_of(selected_.begin(), selected_.end(), overlaps)) continue;
        selected_.push_back({candidate.index, candidate.score});
    }
    return selected_;
}

}  // namespace crosseai::postproc
