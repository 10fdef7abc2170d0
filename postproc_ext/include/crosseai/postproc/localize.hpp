// The whole algorithm, for a batch of maps on several threads.
#pragma once

#include <cstdint>

#include "crosseai/postproc/gradient.hpp"
#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Keyword arguments of `localize`; the defaults are those of arXiv 2310.19835, section 4.2.
struct Parameters {
    double t = 0.30;          // share of the heat map, 0..1
    double threshold = 0.35;  // share of the fused map's maximum, 0..1
    std::int64_t max_candidates = 8;
    std::int64_t min_area = 1;  // pixels
    GradientShape gradient{};   // beyond the paper
    double area_power = 0.0;    // beyond the paper; see `select`
};

/// Maps of one batch, one after the other.
template <class Pixel>
struct Batch {
    const Pixel* data;
    std::size_t count;
    std::size_t height;
    std::size_t width;

    ImageView<Pixel> operator[](std::size_t i) const { return {data + i * height * width, height, width}; }
};

/// Writes a box and a score for each pair of maps. Uses every core when `threads` is 0.
///
/// Throws InvalidMap if a parameter is out of range or a map is empty, too large or not finite; nothing is written
/// then.
void localize(Batch<float> heatmaps, Batch<std::uint8_t> gradient_maps, const Parameters& parameters,
              std::int64_t threads, Box* boxes, float* scores);
void localize(Batch<float> heatmaps, Batch<float> gradient_maps, const Parameters& parameters, std::int64_t threads,
              Box* boxes, float* scores);

}  // namespace crosseai::postproc
