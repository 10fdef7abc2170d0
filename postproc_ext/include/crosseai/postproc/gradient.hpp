// Beyond the paper: what a gradient map needs so that a few outliers do not decide. Off by default.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// How a gradient map is changed before it is fused; the defaults leave it as it is.
struct GradientShape {
    bool positive = false;      // negative gradients become zero
    double percentile = 100.0;  // pixels above it are set to it
    double power = 1.0;         // of the gradient scaled to 0..1; 0.5 is its square root
    double sigma = 0.0;         // of a Gaussian, as a share of the map's shorter side

    bool identity() const { return !positive && percentile == 100.0 && power == 1.0 && sigma == 0.0; }
};

/// Drops negative gradients, clips at a percentile, scales to 0..1, raises to a power and smooths, in this order. Keeps
/// its memory between maps.
///
/// The percentile is the least pixel that this share of all pixels does not exceed; nothing is interpolated.
///
/// The Gaussian is three box filters in each direction (Kovesi, DICTA 2010), whose cost does not depend on sigma;
/// pixels beyond the border repeat the border.
class GradientFilter {
 public:
    /// The map returned is valid until the next call.
    template <class Pixel>  // std::uint8_t or float
    MapView operator()(ImageView<Pixel> gradient_map, const GradientShape& shape);

 private:
    void shape_values(ImageView<std::uint8_t> map, const GradientShape& shape);
    void shape_values(ImageView<float> map, const GradientShape& shape);
    void smooth(std::size_t height, std::size_t width, double sigma_px);

    std::vector<float> map_;
    std::vector<float> spare_;
    std::vector<double> sums_;
};

}  // namespace crosseai::postproc
