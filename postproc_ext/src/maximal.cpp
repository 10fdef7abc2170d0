#include "crosseai/postproc/maximal.hpp"

namespace crosseai::postproc {

void MaximalRectangles::operator()(MaskView mask, std::vector<Box>& boxes) {
    boxes.clear();
    heights_.assign(mask.width + 1, 0);  // a bar of height 0 at the end closes all others
    for (std::size_t y = 0; y < mask.height; ++y) {
        const std::uint8_t* row = mask.row(y);
        for (std::size_t x = 0; x < mask.width; ++x) heights_[x] = (heights_[x] + 1) * row[x];
        const std::uint8_t* row_below = y + 1 < mask.height ? mask.row(y + 1) : nullptr;
        add_row(row_below, mask.width, static_cast<std::int32_t>(y + 1), boxes);
    }
}

void MaximalRectangles::add_row(const std::uint8_t* row_below, std::size_t width, std::int32_t bottom,
                                std::vector<Box>& boxes) {
    std::int32_t closed = 0;  // a bar from the left of this column on cannot grow downwards
    open_.clear();
    for (std::size_t column = 0; column <= width; ++column) {
        const auto x = static_cast<std::int32_t>(column);
        std::int32_t left = x;
        while (!open_.empty() && open_.back().height > heights_[column]) {
            left = open_.back().left;
            if (left < closed) boxes.push_back({left, bottom - open_.back().height, x, bottom});
            open_.pop_back();
        }
        const bool higher = open_.empty() || open_.back().height < heights_[column];
        if (higher && heights_[column] > 0) open_.push_back({left, heights_[column]});
        if (!row_below || (column < width && !row_below[column])) closed = x + 1;
    }
}

}  // namespace crosseai::postproc
