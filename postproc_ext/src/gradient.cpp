#include "crosseai/postproc/gradient.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

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

CROSSEAI_MULTIVERSION void write_mean(const double* sums, double weight, size_t width, float* row) {
    for (size_t x = 0; x < width; ++x) row[x] = static_cast<float>(sums[x] * weight);
}

CROSSEAI_MULTIVERSION void move_window(const float* entering, const float* leaving, size_t width, double* sums) {
    for (size_t x = 0; x < width; ++x) sums[x] += static_cast<double>(entering[x]) - static_cast<double>(leaving[x]);
}

/// Mean of each pixel's column over `radius` pixels on either side.
void box_filter(const float* source, size_t height, size_t width, size_t radius, double* sums, float* target) {
    const auto row = [&](size_t y) { return source + std::min(y, height - 1) * width; };
    std::fill_n(sums, width, 0.0);
    add_row(row(0), static_cast<double>(radius), width, sums);  // those above the border
    for (size_t y = 0; y <= std::min(radius, height - 1); ++y) add_row(row(y), 1.0, width, sums);
    if (radius >= height) add_row(row(height), static_cast<double>(radius - height + 1), width, sums);
    const double weight = 1.0 / (2.0 * static_cast<double>(radius) + 1.0);
    for (size_t y = 0; y < height; ++y) {
        write_mean(sums, weight, width, target + y * width);
        move_window(row(y + radius + 1), row(y > radius ? y - radius : 0), width, sums);
    }
}

void transpose(const float* source, size_t height, size_t width, float* target) {
    constexpr size_t tile = 16;  // rows and columns that stay in the first-level cache
    for (size_t top = 0; top < height; top += tile)
        for (size_t left = 0; left < width; left += tile)
            for (size_t x = left; x < std::min(left + tile, width); ++x)
                for (size_t y = top; y < std::min(top + tile, height); ++y)
                    target[x * height + y] = source[y * width + x];
}

/// Writes the map scaled to 0..1 and raised to a power; zeros if it is constant.
template <class Pixel>
void shape_values(ImageView<Pixel> map, double power, float* shaped) {
    const auto [least, greatest] = std::minmax_element(map.data, map.data + map.size());
    const auto low = static_cast<double>(*least);
    const double spread = static_cast<double>(*greatest) - low;
    const double scale = spread > 0.0 ? 1.0 / spread : 0.0;
    const auto shape = [=](double value) { return static_cast<float>(std::pow((value - low) * scale, power)); };
    if constexpr (std::is_same_v<Pixel, float>) {
        std::transform(map.data, map.data + map.size(), shaped, shape);
    } else {
        std::array<float, 256> table{};  // of every possible pixel
        for (int value = *least; value <= *greatest; ++value) table[static_cast<size_t>(value)] = shape(value);
        std::transform(map.data, map.data + map.size(), shaped, [&](Pixel value) { return table[value]; });
    }
}

}  // namespace

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
    shape_values(gradient_map, shape.power, map_.data());
    if (shape.sigma > 0.0) smooth(height, width, shape.sigma * static_cast<double>(std::min(height, width)));
    return {map_.data(), height, width};
}

template MapView GradientFilter::operator()(ImageView<std::uint8_t>, const GradientShape&);
template MapView GradientFilter::operator()(ImageView<float>, const GradientShape&);

}  // namespace crosseai::postproc
