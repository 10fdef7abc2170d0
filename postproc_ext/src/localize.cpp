#include "crosseai/postproc/localize.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "crosseai/postproc/checks.hpp"
#include "crosseai/postproc/fusion.hpp"
#include "crosseai/postproc/rectangles.hpp"
#include "crosseai/postproc/selection.hpp"

namespace crosseai::postproc {
namespace {

/// The algorithm with its workspace, so that only the first map of a size allocates memory.
class Localizer {
 public:
    template <class Pixel>
    Selection operator()(MapView heatmap, ImageView<Pixel> gradient_map, const Parameters& parameters, Box& box) {
        fused_.resize(gradient_map.size());
        mask_.resize(gradient_map.size());
        const MapView fused{fused_.data(), gradient_map.height, gradient_map.width};
        const MaskView mask{mask_.data(), gradient_map.height, gradient_map.width};
        fuse_(heatmap, gradient_map, parameters.t, parameters.gradient, fused_.data());
        binarize(fused, parameters.threshold, mask_.data());
        maximal_rectangles(mask, static_cast<std::size_t>(parameters.max_candidates), parameters.min_area, search_,
                           candidates_);
        expand_.start(mask);
        for (Box& candidate : candidates_) candidate = expand_(candidate);
        const Selection best = select(fused, mask, candidates_, parameters.area_power);
        box = best.index < 0 ? Box{} : candidates_[static_cast<std::size_t>(best.index)];
        return best;
    }

 private:
    std::vector<float> fused_;
    std::vector<std::uint8_t> mask_;
    std::vector<Box> candidates_;
    Fusion fuse_;
    RectangleSearch search_;
    Expansion expand_;
};

/// Calls `work` on `threads` threads, this one included, and rethrows the first failure.
template <class Work>
void run_on_threads(std::size_t threads, const Work& work) {
    std::atomic_flag failed = ATOMIC_FLAG_INIT;
    std::exception_ptr failure;
    const auto guarded = [&] {
        try {
            work();
        } catch (...) {
            if (!failed.test_and_set()) failure = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    helpers.reserve(threads);
    try {
        while (helpers.size() + 1 < threads) helpers.emplace_back(guarded);
    } catch (const std::exception&) {
        // The system grants no more threads: those at hand share the work.
    }
    guarded();
    for (std::thread& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
}

template <class Pixel>
void check(Batch<float> heatmaps, Batch<Pixel> gradient_maps, const Parameters& parameters, std::int64_t threads) {
    require_share(parameters.t, "t");
    require_share(parameters.threshold, "threshold");
    require_gradient_shape(parameters.gradient);
    require_share(parameters.area_power, "area_power");
    require_at_least(parameters.max_candidates, 1, "max_candidates");
    require_at_least(parameters.min_area, 1, "min_area");
    require_at_least(threads, 0, "threads");
    if (heatmaps.count != gradient_maps.count)
        throw InvalidMap("gradient_maps: expected one for each of " + std::to_string(heatmaps.count) +
                         " heat maps, found " + std::to_string(gradient_maps.count));
    require_map_size(heatmaps.height, heatmaps.width, "heatmaps");
    require_map_size(gradient_maps.height, gradient_maps.width, "gradient_maps");
    for (std::size_t i = 0; i < heatmaps.count; ++i) {
        require_finite(heatmaps[i], "heatmaps");
        if constexpr (std::is_same_v<Pixel, float>) require_finite(gradient_maps[i], "gradient_maps");
    }
}

template <class Pixel>
void localize_batch(Batch<float> heatmaps, Batch<Pixel> gradient_maps, const Parameters& parameters,
                    std::int64_t threads, Box* boxes, float* scores) {
    check(heatmaps, gradient_maps, parameters, threads);
    const auto wanted = threads > 0 ? static_cast<std::size_t>(threads) : std::thread::hardware_concurrency();
    std::atomic<std::size_t> next{0};
    run_on_threads(std::min(std::max<std::size_t>(wanted, 1), heatmaps.count), [&] {
        thread_local Localizer localizer;  // the calling thread finds it again at its next call
        for (std::size_t i = next++; i < heatmaps.count; i = next++)
            scores[i] = localizer(heatmaps[i], gradient_maps[i], parameters, boxes[i]).score;
    });
}

}  // namespace

void localize(Batch<float> heatmaps, Batch<std::uint8_t> gradient_maps, const Parameters& parameters,
              std::int64_t threads, Box* boxes, float* scores) {
    localize_batch(heatmaps, gradient_maps, parameters, threads, boxes, scores);
}

void localize(Batch<float> heatmaps, Batch<float> gradient_maps, const Parameters& parameters, std::int64_t threads,
              Box* boxes, float* scores) {
    localize_batch(heatmaps, gradient_maps, parameters, threads, boxes, scores);
}

}  // namespace crosseai::postproc
