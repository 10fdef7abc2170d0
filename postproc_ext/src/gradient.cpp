#include "crosseai/postproc/gradient.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "multiversion.hpp"

namespace crosseai::postproc {
namespace {

using std::size_t;

/// Radii of three box filters that together have the variance of a Gaussian, as nearly as whole pixels allow.
std::array<size_t, 3> box_radii(double sigma_px) {
    const double variance = 12.0 * sigma_px * sigma_px;
    const auto radius = static_cast<size_t>((std::sqrt(variance / 3.0 + 1.0) - 1.0) / 2.0);
    const double width = 2.0 * static_cast<double>(radius) + 1.0;
    const auto narrow = std::lround((3.0 * width * width + 12.0 * width + 9.0 - variance) / (4.0 * width + 4.0));
    std::array<size_t, 3> radii;
    for (size_t i = 0; i < 3; ++i) radii[i] = static_cast<long>(i) < narrow ? radius : radius + 1;
    return radii;
}

CROSSEAI_MULTIVERSION void add_row(const float* row, double weight, size_t width, double* sums) {
    for (size_t x = 0; x < width; ++x) sums[x] += weight * static_cast<double>(row[x]);
}

/// Writes the windows' means, then moves the windows one row down.
CROSSEAI_MULTIVERSION void write_mean_and_move(const float* __restrict entering, const float* __restrict leaving,
                                               double weight, size_t width, double* __restrict sums,
                                               float* __restrict row) {
    for (size_t x = 0; x < width; ++x) {
        row[x] = static_cast<float>(sums[x] * weight);
        sums[x] += static_cast<double>(entering[x]) - static_cast<double>(leaving[x]);
    }
}

/// Mean of each pixel's column over `radius` pixels on either side.
void box_filter(const float* source, size_t height, size_t width, size_t radius, double* sums, float* target) {
    const auto row = [&](size_t y) { return source + std::min(y, height - 1) * width; };
    std::fill_n(sums, width, 0.0);
    add_row(row(0), static_cast<double>(radius), width, sums);  // those above the border
    for (size_t y = 0; y <= std::min(radius, height - 1); ++y) add_row(row(y), 1.0, width, sums);
    if (radius >= height) add_row(row(height), static_cast<double>(radius - height + 1), width, sums);
    const double weight = 1.0 / (2.0 * static_cast<double>(radius) + 1.0);
    for (size_t y = 0; y < height; ++y)
        write_mean_and_move(row(y + radius + 1), row(y > radius ? y - radius : 0), weight, width, sums,
                            target + y * width);
}

void transpose(const float* source, size_t height, size_t width, float* target) {
    constexpr size_t tile = 16;  // rows and columns that stay in the first-level cache
    for (size_t top = 0; top < height; top += tile)
        for (size_t left = 0; left < width; left += tile)
            for (size_t x = left; x < std::min(left + tile, width); ++x)
                for (size_t y = top; y < std::min(top + tile, height); ++y)
                    target[x * height + y] = source[y * width + x];
}

using Histogram = std::array<size_t, 256>;

Histogram histogram(ImageView<std::uint8_t> map) {
    std::array<Histogram, 4> parts{};  // neighbours are often equal; each would wait for the other's count
    for (size_t i = 0; i < map.size(); ++i) ++parts[i % parts.size()][map.data[i]];
    Histogram counts{};
    for (const Histogram& part : parts)
        std::transform(counts.begin(), counts.end(), part.begin(), counts.begin(), std::plus<>());
    return counts;
}

/// How many pixels, in ascending order, the percentile comes to; at least 1.
size_t percentile_rank(double percentile, size_t size) {
    return std::max<size_t>(1, static_cast<size_t>(std::ceil(percentile * static_cast<double>(size) / 100.0)));
}

/// Scales low..high to 0..1 and raises to a power; a constant map becomes zeros.
class Shaper {
 public:
    Shaper(double low, double high, double power)
        : low_(low), high_(high), scale_(high > low ? 1.0 / (high - low) : 0.0), power_(power) {}

    float operator()(double value) const {
        return static_cast<float>(std::pow((std::clamp(value, low_, high_) - low_) * scale_, power_));
    }

 private:
    double low_, high_, scale_, power_;
};

}  // namespace

void GradientFilter::shape_values(ImageView<std::uint8_t> map, const GradientShape& shape) {
    const Histogram counts = histogram(map);
    size_t low = 0;
    while (counts[low] == 0) ++low;
    size_t high = 0;
    const size_t rank = percentile_rank(shape.percentile, map.size());
    for (size_t seen = counts[0]; seen < rank; seen += counts[high]) ++high;
    const Shaper shaped(static_cast<double>(low), static_cast<double>(high), shape.power);
    std::array<float, 256> table;
    for (size_t value = 0; value < table.size(); ++value) table[value] = shaped(static_cast<double>(value));
    std::transform(map.data, map.data + map.size(), map_.begin(), [&](std::uint8_t value) { return table[value]; });
}

void GradientFilter::shape_values(ImageView<float> map, const GradientShape& shape) {
    const float least = shape.positive ? 0.0F : std::numeric_limits<float>::lowest();
    std::transform(map.data, map.data + map.size(), map_.begin(), [=](float value) { return std::max(value, least); });
    spare_ = map_;
    const size_t rank = percentile_rank(shape.percentile, map.size());
    const auto limit = spare_.begin() + static_cast<std::ptrdiff_t>(rank - 1);
    std::nth_element(spare_.begin(), limit, spare_.end());
    const Shaper shaped(*std::min_element(map_.begin(), map_.end()), *limit, shape.power);
    std::transform(map_.begin(), map_.end(), map_.begin(), shaped);
}

void GradientFilter::smooth(size_t height, size_t width, double sigma_px) {
    spare_.resize(map_.size());
    sums_.resize(std::max(height, width));
    const auto radii = box_radii(sigma_px);
    for (int direction = 0; direction < 2; ++direction) {
        for (const size_t radius : radii) {
            box_filter(map_.data(), height, width, radius, sums_.data(), spare_.data());
            map_.swap(spare_);
        }
        transpose(map_.data(), height, width, spare_.data());
        map_.swap(spare_);
        std::swap(height, width);
    }
}

template <class Pixel>
MapView GradientFilter::operator()(ImageView<Pixel> gradient_map, const GradientShape& shape) {
    const std::size_t height = gradient_map.height;
    const std::size_t width = gradient_map.width;
    map_.resize(gradient_map.size());
    shape_values(gradient_map, shape);
    if (shape.sigma > 0.0) smooth(height, width, shape.sigma * static_cast<double>(std::min(height, width)));
    return {map_.data(), height, width};
}

template MapView GradientFilter::operator()(ImageView<std::uint8_t>, const GradientShape&);
template MapView GradientFilter::operator()(ImageView<float>, const GradientShape&);

}  // namespace crosseai::postproc
