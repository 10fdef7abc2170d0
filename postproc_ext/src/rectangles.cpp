#include "crosseai/postproc/rectangles.hpp"

#include <algorithm>
#include <tuple>

#include "multiversion.hpp"

namespace crosseai::postproc {
namespace {

using std::uint16_t;
using std::uint32_t;
using std::uint8_t;

struct RowState {
    uint16_t* up;
    uint16_t* left;
    uint16_t* right;
};

struct RowUpdate {
    uint32_t area;  // largest rectangle with its bottom in this row
    bool changed;
};

CROSSEAI_MULTIVERSION void find_runs(const uint8_t* mask, std::size_t width, uint16_t* start, uint16_t* end) {
    std::size_t run_start = 0;
    std::size_t run_end = width;
    for (std::size_t i = 0; i < width; ++i) {
        const std::size_t j = width - 1 - i;
        run_start = mask[i] ? run_start : i + 1;
        run_end = mask[j] ? run_end : j;
        start[i] = static_cast<uint16_t>(run_start);
        end[j] = static_cast<uint16_t>(run_end);
    }
}

// A zero pixel gets up = left = 0 and right = max_side, which limit nothing in the row below.
CROSSEAI_MULTIVERSION RowUpdate update(const uint8_t* __restrict mask, const uint16_t* __restrict start,
                                       const uint16_t* __restrict end, const uint16_t* __restrict above_up,
                                       const uint16_t* __restrict above_left, const uint16_t* __restrict above_right,
                                       uint16_t* __restrict up, uint16_t* __restrict left,
                                       uint16_t* __restrict right, std::size_t width) {
    uint32_t area = 0;
    uint16_t difference = 0;
#pragma omp simd reduction(max : area) reduction(| : difference)
    for (std::size_t x = 0; x < width; ++x) {
        const auto one = static_cast<uint16_t>(-mask[x]);
        const auto new_up = static_cast<uint16_t>((above_up[x] + 1) & one);
        const auto new_left = static_cast<uint16_t>(std::max(above_left[x], start[x]) & one);
        const auto new_right = static_cast<uint16_t>(std::min(above_right[x], end[x]) | static_cast<uint16_t>(~one));
        difference = static_cast<uint16_t>(difference | (new_up ^ up[x]) | (new_left ^ left[x]) |
                                           (new_right ^ right[x]));
        up[x] = new_up;
        left[x] = new_left;
        right[x] = new_right;
        area = std::max(area, uint32_t{new_up} * static_cast<uint16_t>(new_right - new_left));
    }
    return {area, difference != 0};
}

}  // namespace

bool RectangleSearch::update_row(std::size_t y) {
    const uint8_t* mask = mask_.data() + y * width_;
    const std::size_t above = y * width_;
    const std::size_t here = above + width_;
    find_runs(mask, width_, run_start_.data(), run_end_.data());
    const auto result = update(mask, run_start_.data(), run_end_.data(), up_.data() + above, left_.data() + above,
                               right_.data() + above, up_.data() + here, left_.data() + here, right_.data() + here,
                               width_);
    row_area_[y] = result.area;
    return result.changed;
}

void RectangleSearch::start(MaskView mask) {
    height_ = mask.height;
    width_ = mask.width;
    mask_.assign(mask.data, mask.data + mask.size());
    const std::size_t cells = mask.size() + width_;
    up_.resize(cells);
    left_.resize(cells);
    right_.resize(cells);
    std::fill_n(up_.begin(), width_, uint16_t{0});
    std::fill_n(left_.begin(), width_, uint16_t{0});
    std::fill_n(right_.begin(), width_, static_cast<uint16_t>(max_side));
    run_start_.resize(width_);
    run_end_.resize(width_);
    row_area_.resize(height_);
    for (std::size_t y = 0; y < height_; ++y) update_row(y);
}

Box RectangleSearch::largest() const {
    const uint32_t area = *std::max_element(row_area_.begin(), row_area_.end());
    if (area == 0) return {};
    const auto order = [](const Box& box) { return std::tuple(box.y0, box.x0, box.y1); };
    Box best{0, static_cast<std::int32_t>(height_), 0, 0};
    for (std::size_t y = 0; y < height_; ++y) {
        if (row_area_[y] != area) continue;
        const std::size_t here = (y + 1) * width_;
        for (std::size_t i = here; i < here + width_; ++i) {
            if (uint32_t{up_[i]} * static_cast<uint16_t>(right_[i] - left_[i]) != area) continue;
            const auto bottom = static_cast<std::int32_t>(y) + 1;
            best = std::min(best, Box{left_[i], bottom - up_[i], right_[i], bottom},
                            [&](const Box& a, const Box& b) { return order(a) < order(b); });
        }
    }
    return best;
}

void RectangleSearch::clear(const Box& box) {
    const auto top = static_cast<std::size_t>(box.y0);
    const auto bottom = static_cast<std::size_t>(box.y1);
    for (std::size_t y = top; y < bottom; ++y) std::fill_n(mask_.begin() + y * width_ + box.x0, box.x1 - box.x0, 0);
    for (std::size_t y = top; y < height_; ++y) {
        const bool changed = update_row(y);
        if (y >= bottom && !changed) break;
    }
}

void maximal_rectangles(MaskView mask, std::size_t max_candidates, std::int64_t min_area, RectangleSearch& search,
                        std::vector<Box>& candidates) {
    candidates.clear();
    search.start(mask);
    while (candidates.size() < max_candidates) {
        const Box box = search.largest();
        if (box.empty() || box.area() < min_area) break;
        candidates.push_back(box);
        search.clear(box);
    }
}

}  // namespace crosseai::postproc
