// Steps 1 to 4: heat map and gradient map become one map, and the map a mask.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/gradient.hpp"
#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Weighted average of a heat map and a gradient map (arXiv 2310.19835, equation 4). Keeps its memory between maps.
class Fusion {
 public:
    /// Writes t * H + (1 - t) * G to `fused` (the gradient map's shape).
    ///
    /// H is the heat map enlarged bilinearly (half-pixel centres, clamped edges), G the gradient map as `shape` says;
    /// each is scaled min..max to [0, 255], and a constant one becomes zeros. Both must be finite and not empty.
    template <class Pixel>  // std::uint8_t or float
    void operator()(MapView heatmap, ImageView<Pixel> gradient_map, double t, const GradientShape& shape, float* fused);

 private:
    void enlarge_heatmap(MapView heatmap, std::size_t height, std::size_t width, double peak);

    struct Tap {  // one output position between two input positions
        std::size_t lower;
        std::size_t upper;
        double weight;  // of `upper`
    };
    static void interpolate(std::size_t size, std::size_t enlarged_size, std::vector<Tap>& taps);

    GradientFilter filter_;
    std::vector<Tap> columns_;
    std::vector<Tap> rows_;
    std::vector<double> wide_;        // heat map enlarged horizontally, unscaled
    std::vector<float> wide_scaled_;  // the same, scaled to [0, peak]
};

/// Writes 1 where a pixel exceeds `threshold` times the map's maximum; all zeros if that is not positive.
void binarize(MapView fused, double threshold, std::uint8_t* mask);

}  // namespace crosseai::postproc
