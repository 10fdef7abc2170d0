#include "crosseai/postproc/components.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace crosseai::postproc {
namespace {

/// First column from `x` on whose pixel has that value; `width` if none.
std::size_t find(const std::uint8_t* row, std::uint8_t value, std::size_t x, std::size_t width) {
    const void* found = std::memchr(row + x, value, width - x);
    return found ? static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - row) : width;
}

}  // namespace

void Components::operator()(MaskView mask, std::vector<Box>& boxes) {
    runs_.clear();
    extents_.clear();
    parents_.clear();
    std::size_t above = 0;
    for (std::size_t y = 0; y < mask.height; ++y) {
        const std::size_t here = runs_.size();
        add_runs(mask.row(y), mask.width, static_cast<std::int32_t>(y));
        unite_touching(above, here);
        above = here;
    }
    boxes.clear();
    for (std::size_t run = 0; run < runs_.size(); ++run)
        if (parents_[run] == run) boxes.push_back(extents_[run]);
}

void Components::add_runs(const std::uint8_t* row, std::size_t width, std::int32_t y) {
    for (std::size_t end = 0;;) {
        const std::size_t begin = find(row, 1, end, width);
        if (begin == width) return;
        end = find(row, 0, begin, width);
        parents_.push_back(runs_.size());
        runs_.push_back({static_cast<std::int32_t>(begin), y, static_cast<std::int32_t>(end), y + 1});
        extents_.push_back(runs_.back());
    }
}

/// Unites the runs from `here` on with those of the row above, [above, here), that touch them, be it at a corner.
void Components::unite_touching(std::size_t above, std::size_t here) {
    for (std::size_t run = here; run < runs_.size(); ++run) {
        while (above < here && runs_[above].x1 < runs_[run].x0) ++above;
        for (std::size_t other = above; other < here && runs_[other].x0 <= runs_[run].x1; ++other) unite(run, other);
    }
}

void Components::unite(std::size_t run, std::size_t other) {
    std::size_t low = root(run);
    std::size_t high = root(other);
    if (low == high) return;
    if (low > high) std::swap(low, high);
    parents_[high] = low;
    Box& extent = extents_[low];
    const Box& added = extents_[high];
    extent = {std::min(extent.x0, added.x0), std::min(extent.y0, added.y0), std::max(extent.x1, added.x1),
              std::max(extent.y1, added.y1)};
}

std::size_t Components::root(std::size_t run) {
    while (parents_[run] != run) run = parents_[run] = parents_[parents_[run]];
    return run;
}

}  // namespace crosseai::postproc
