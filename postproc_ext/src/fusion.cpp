#include "crosseai/postproc/fusion.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "multiversion.hpp"

namespace crosseai::postproc {
namespace {

// By value: std::min and std::max return references, which keeps the compiler from vectorising a reduction.
template <class Value>
constexpr Value lesser(Value a, Value b) {
    return a < b ? a : b;
}

template <class Value>
constexpr Value greater(Value a, Value b) {
    return a > b ? a : b;
}

template <class Value>
struct Range {
    Value low = std::numeric_limits<Value>::max();
    Value high = std::numeric_limits<Value>::lowest();

    /// Factor that scales low..high to 0..peak; zero for a constant map.
    double scale(double peak) const {
        return high > low ? peak / (static_cast<double>(high) - static_cast<double>(low)) : 0.0;
    }
};

template <class Pixel>
[[gnu::always_inline]] inline Range<Pixel> range_of(const Pixel* pixels, std::size_t size) {
    Pixel low = pixels[0];
    Pixel high = pixels[0];
#pragma omp simd reduction(min : low) reduction(max : high)
    for (std::size_t i = 0; i < size; ++i) {
        low = lesser(low, pixels[i]);
        high = greater(high, pixels[i]);
    }
    return {low, high};
}

CROSSEAI_MULTIVERSION Range<std::uint8_t> pixel_range(const std::uint8_t* pixels, std::size_t size) {
    return range_of(pixels, size);
}

CROSSEAI_MULTIVERSION Range<float> pixel_range(const float* pixels, std::size_t size) { return range_of(pixels, size); }

CROSSEAI_MULTIVERSION Range<double> blended_range(const double* lower, const double* upper, double weight,
                                                  std::size_t width) {
    double low = std::numeric_limits<double>::max();
    double high = std::numeric_limits<double>::lowest();
#pragma omp simd reduction(min : low) reduction(max : high)
    for (std::size_t x = 0; x < width; ++x) {
        const double value = lower[x] + weight * (upper[x] - lower[x]);
        low = lesser(low, value);
        high = greater(high, value);
    }
    return {low, high};
}

// 8-bit differences are exact in float; float maps may span more than a float holds.
template <class Pixel>
using Wide = std::conditional_t<std::is_same_v<Pixel, float>, double, float>;

template <class Pixel>
[[gnu::always_inline]] inline void fuse_row_of(const float* lower, const float* upper, float weight,
                                               const Pixel* gradient, Pixel gradient_low, double gradient_scale,
                                               std::size_t width, float* __restrict fused) {
    const auto low = static_cast<Wide<Pixel>>(gradient_low);
    const auto scale = static_cast<Wide<Pixel>>(gradient_scale);
    for (std::size_t x = 0; x < width; ++x) {
        const float heat = greater(lower[x] + weight * (upper[x] - lower[x]), 0.0F);
        fused[x] = heat + static_cast<float>((static_cast<Wide<Pixel>>(gradient[x]) - low) * scale);
    }
}

CROSSEAI_MULTIVERSION void fuse_row(const float* lower, const float* upper, float weight, const std::uint8_t* gradient,
                                    std::uint8_t gradient_low, double gradient_scale, std::size_t width, float* fused) {
    fuse_row_of(lower, upper, weight, gradient, gradient_low, gradient_scale, width, fused);
}

CROSSEAI_MULTIVERSION void fuse_row(const float* lower, const float* upper, float weight, const float* gradient,
                                    float gradient_low, double gradient_scale, std::size_t width, float* fused) {
    fuse_row_of(lower, upper, weight, gradient, gradient_low, gradient_scale, width, fused);
}

CROSSEAI_MULTIVERSION void above(const float* pixels, float limit, std::size_t size, std::uint8_t* mask) {
    for (std::size_t i = 0; i < size; ++i) mask[i] = pixels[i] > limit;
}

}  // namespace

void Fusion::interpolate(std::size_t size, std::size_t enlarged_size, std::vector<Tap>& taps) {
    taps.resize(enlarged_size);
    const double step = static_cast<double>(size) / static_cast<double>(enlarged_size);
    const auto last = static_cast<double>(size - 1);
    for (std::size_t i = 0; i < enlarged_size; ++i) {
        const double position = std::clamp((static_cast<double>(i) + 0.5) * step - 0.5, 0.0, last);
        const auto lower = static_cast<std::size_t>(position);
        taps[i] = {lower, std::min(lower + 1, size - 1), position - static_cast<double>(lower)};
    }
}

// Every output row lies between two rows of `wide_scaled_`, so each pixel costs one interpolation, not two.
void Fusion::enlarge_heatmap(MapView heatmap, std::size_t height, std::size_t width, double peak) {
    interpolate(heatmap.width, width, columns_);
    interpolate(heatmap.height, height, rows_);
    wide_.resize(heatmap.height * width);
    for (std::size_t y = 0; y < heatmap.height; ++y) {
        const float* source = heatmap.row(y);
        double* wide = wide_.data() + y * width;
        for (std::size_t x = 0; x < width; ++x) {
            const Tap& tap = columns_[x];
            const double lower = source[tap.lower];
            wide[x] = lower + tap.weight * (source[tap.upper] - lower);
        }
    }

    // A column is monotonic between two input rows: the extremes lie in the first or last output row between them.
    Range<double> range;
    for (std::size_t y = 0; y < height; ++y) {
        const bool inner =
            y > 0 && y + 1 < height && rows_[y - 1].lower == rows_[y].lower && rows_[y + 1].lower == rows_[y].lower;
        if (inner) continue;
        const auto row = blended_range(wide_.data() + rows_[y].lower * width, wide_.data() + rows_[y].upper * width,
                                       rows_[y].weight, width);
        range.low = std::min(range.low, row.low);
        range.high = std::max(range.high, row.high);
    }

    const double scale = range.scale(peak);
    wide_scaled_.resize(wide_.size());
    std::transform(wide_.begin(), wide_.end(), wide_scaled_.begin(),
                   [=](double value) { return static_cast<float>((value - range.low) * scale); });
}

namespace {

template <class Tap, class Pixel>
void fuse_rows(const std::vector<Tap>& rows, const std::vector<float>& heat, ImageView<Pixel> gradient_map,
               double gradient_peak, float* fused) {
    const auto range = pixel_range(gradient_map.data, gradient_map.size());
    const double scale = range.scale(gradient_peak);
    const std::size_t width = gradient_map.width;
    for (std::size_t y = 0; y < gradient_map.height; ++y)
        fuse_row(heat.data() + rows[y].lower * width, heat.data() + rows[y].upper * width,
                 static_cast<float>(rows[y].weight), gradient_map.row(y), range.low, scale, width, fused + y * width);
}

}  // namespace

template <class Pixel>
void Fusion::operator()(MapView heatmap, ImageView<Pixel> gradient_map, double t, const GradientShape& shape,
                        float* fused) {
    const double gradient_peak = 255.0 * (1.0 - t);
    enlarge_heatmap(heatmap, gradient_map.height, gradient_map.width, 255.0 * t);
    if (shape.identity())
        fuse_rows(rows_, wide_scaled_, gradient_map, gradient_peak, fused);
    else
        fuse_rows(rows_, wide_scaled_, filter_(gradient_map, shape), gradient_peak, fused);
}

template void Fusion::operator()(MapView, ImageView<std::uint8_t>, double, const GradientShape&, float*);
template void Fusion::operator()(MapView, ImageView<float>, double, const GradientShape&, float*);

void binarize(MapView fused, double threshold, std::uint8_t* mask) {
    const float peak = pixel_range(fused.data, fused.size()).high;
    const float limit =
        peak > 0.0F ? static_cast<float>(threshold * static_cast<double>(peak)) : std::numeric_limits<float>::max();
    above(fused.data, limit, fused.size(), mask);
}

}  // namespace crosseai::postproc
