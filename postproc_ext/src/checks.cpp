#include "crosseai/postproc/checks.hpp"

#include <cmath>
#include <cstring>
#include <string>

#include "multiversion.hpp"

namespace crosseai::postproc {
namespace {

// On the bits: a comparison with infinity would depend on the compiler's floating-point options.
CROSSEAI_MULTIVERSION bool all_finite(const float* pixels, std::size_t size) {
    constexpr std::uint32_t exponent = 0x7f800000;
    std::uint32_t not_finite = 0;
    for (std::size_t i = 0; i < size; ++i) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, pixels + i, sizeof bits);
        not_finite |= (bits & exponent) == exponent;
    }
    return not_finite == 0;
}

CROSSEAI_MULTIVERSION bool all_binary(const std::uint8_t* mask, std::size_t size) {
    std::uint8_t bits = 0;
    for (std::size_t i = 0; i < size; ++i) bits = static_cast<std::uint8_t>(bits | mask[i]);
    return bits <= 1;
}

bool is_side(std::size_t size) { return size >= 1 && size <= max_side; }

std::string size_message(std::size_t height, std::size_t width, const char* name) {
    return std::string(name) + ": expected 1 to " + std::to_string(max_side) + " pixels a side, found height " +
           std::to_string(height) + " and width " + std::to_string(width);
}

std::string text(const Box& box) {
    return "(" + std::to_string(box.x0) + ", " + std::to_string(box.y0) + ", " + std::to_string(box.x1) + ", " +
           std::to_string(box.y1) + ")";
}

}  // namespace

void require_map_size(std::size_t height, std::size_t width, const char* name) {
    if (!is_side(height) || !is_side(width)) throw InvalidMap(size_message(height, width, name));
}

void require_mask_size(std::size_t height, std::size_t width) {
    if (!is_side(height) || !is_side(width)) throw InvalidMask(size_message(height, width, "mask"));
}

void require_finite(MapView map, const char* name) {
    if (!all_finite(map.data, map.size()))
        throw InvalidMap(std::string(name) + ": expected finite values, found NaN or infinity");
}

void require_binary(MaskView mask) {
    if (!all_binary(mask.data, mask.size())) throw InvalidMask("mask: expected values in {0, 1}, found greater ones");
}

void require_inside(MaskView mask, const std::vector<Box>& boxes) {
    const auto width = static_cast<std::int32_t>(mask.width);
    const auto height = static_cast<std::int32_t>(mask.height);
    for (const Box& box : boxes) {
        if (0 <= box.x0 && box.x0 < box.x1 && box.x1 <= width && 0 <= box.y0 && box.y0 < box.y1 && box.y1 <= height)
            continue;
        throw InvalidMask("rectangles: expected x0 < x1 and y0 < y1 inside a mask of height " + std::to_string(height) +
                          " and width " + std::to_string(width) + ", found " + text(box));
    }
}

void require_share(double value, const char* name) {
    if (!(value >= 0.0 && value <= 1.0))
        throw InvalidMap(std::string(name) + ": expected a share in 0..1, found " + std::to_string(value));
}

void require_gradient_shape(const GradientShape& shape, bool pixels_have_sign) {
    if (shape.positive && !pixels_have_sign)
        throw InvalidMap("gradient_positive: expected float32 gradient maps, found uint8, which has no sign");
    if (!(shape.percentile > 0.0 && shape.percentile <= 100.0))
        throw InvalidMap("gradient_percentile: expected above 0 and at most 100, found " +
                         std::to_string(shape.percentile));
    if (!(shape.power > 0.0 && std::isfinite(shape.power)))
        throw InvalidMap("gradient_power: expected a positive number, found " + std::to_string(shape.power));
    require_share(shape.sigma, "gradient_sigma");
}

void require_candidate_rule(const CandidateRule& rule) {
    require_at_least(rule.max_candidates, 1, "max_candidates");
    require_at_least(rule.min_area, 1, "min_area");
    require_share(rule.min_area_share, "min_area_share");
}

void require_selection_rule(const SelectionRule& rule) {
    require_share(rule.area_power, "area_power");
    require_share(rule.score_ratio, "score_ratio");
    require_at_least(rule.max_boxes, 1, "max_boxes");
}

void require_at_least(std::int64_t value, std::int64_t least, const char* name) {
    if (value < least)
        throw InvalidMap(std::string(name) + ": expected at least " + std::to_string(least) + ", found " +
                         std::to_string(value));
}

}  // namespace crosseai::postproc
