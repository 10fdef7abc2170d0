// The whole algorithm, for a batch of maps on several threads.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/candidates.hpp"
#include "crosseai/postproc/gradient.hpp"
#include "crosseai/postproc/selection.hpp"
#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Keyword arguments of `localize`; the defaults are those of arXiv 2310.19835, section 4.2.
struct Parameters {
    double t = 0.30;          // share of the heat map, 0..1
    double threshold = 0.35;  // share of the fused map's maximum, 0..1
    GradientShape gradient{};
    double closing = 0.0;  // share of the maps' shorter side; beyond the paper
    CandidateRule candidates{};
    SelectionRule selection{};
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

struct ScoredBox {
    Box box{};  // all zero with score 0: no box
    float score = 0.0F;
};

/// Writes the best box of each pair of maps. Uses every core when `threads` is 0.
///
/// Throws InvalidMap if a parameter is out of range or a map is empty, too large or not finite; nothing is written
/// then.
template <class Pixel>  // std::uint8_t or float
void localize(Batch<float> heatmaps, Batch<Pixel> gradient_maps, Parameters parameters, std::int64_t threads,
              ScoredBox* boxes);

/// Boxes of each pair of maps, the best first; they do not overlap. Throws as `localize` does.
template <class Pixel>  // std::uint8_t or float
std::vector<std::vector<ScoredBox>> localize_many(Batch<float> heatmaps, Batch<Pixel> gradient_maps,
                                                  const Parameters& parameters, std::int64_t threads);

}  // namespace crosseai::postproc
