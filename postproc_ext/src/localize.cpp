#include "crosseai/postproc/localize.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "crosseai/postproc/checks.hpp"
#include "crosseai/postproc/closing.hpp"
#include "crosseai/postproc/fusion.hpp"

namespace crosseai::postproc {
namespace {

/// The algorithm with its workspace, so that only the first map of a size allocates memory.
class Localizer {
 public:
    /// Calls `use` with each box and its score, the best first.
    template <class Pixel, class Use>
    void operator()(MapView heatmap, ImageView<Pixel> gradient_map, const Parameters& parameters, const Use& use) {
        const auto [data, height, width] = gradient_map;
        fused_.resize(gradient_map.size());
        mask_.resize(gradient_map.size());
        const MapView fused{fused_.data(), height, width};
        const MaskView mask{mask_.data(), height, width};
        fuse_(heatmap, gradient_map, parameters.t, parameters.gradient, fused_.data());
        binarize(fused, parameters.threshold, mask_.data());
        close_(mask_.data(), height, width, parameters.closing);
        find_(mask, parameters.candidates, candidates_);
        expand_.start(mask);
        for (Box& candidate : candidates_) candidate = expand_(candidate);
        for (const auto& [index, score] : select_(fused, mask, candidates_, parameters.selection))
            if (score > 0.0F) use(ScoredBox{candidates_[index], score});  // a closed gap may hold nothing
    }

 private:
    std::vector<float> fused_;
    std::vector<std::uint8_t> mask_;
    std::vector<Box> candidates_;
    Fusion fuse_;
    Closing close_;
    CandidateSearch find_;
    Expansion expand_;
    Selector select_;
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
    constexpr bool is_float = std::is_same_v<Pixel, float>;
    require_share(parameters.t, "t");
    require_share(parameters.threshold, "threshold");
    require_gradient_shape(parameters.gradient, is_float);
    require_share(parameters.closing, "closing");
    require_candidate_rule(parameters.candidates);
    require_selection_rule(parameters.selection);
    require_at_least(threads, 0, "threads");
    if (heatmaps.count != gradient_maps.count)
        throw InvalidMap("gradient_maps: expected one for each of " + std::to_string(heatmaps.count) +
                         " heat maps, found " + std::to_string(gradient_maps.count));
    require_map_size(heatmaps.height, heatmaps.width, "heatmaps");
    require_map_size(gradient_maps.height, gradient_maps.width, "gradient_maps");
    for (std::size_t i = 0; i < heatmaps.count; ++i) {
        require_finite(heatmaps[i], "heatmaps");
        if constexpr (is_float) require_finite(gradient_maps[i], "gradient_maps");
    }
}

/// Calls `use` with the number of a map and each of its boxes, on any thread.
template <class Pixel, class Use>
void localize_each(Batch<float> heatmaps, Batch<Pixel> gradient_maps, const Parameters& parameters,
                   std::int64_t threads, const Use& use) {
    const auto wanted = threads > 0 ? static_cast<std::size_t>(threads) : std::thread::hardware_concurrency();
    std::atomic<std::size_t> next{0};
    run_on_threads(std::min(std::max<std::size_t>(wanted, 1), heatmaps.count), [&] {
        // The calling thread finds it again at its next call.
        thread_local Localizer localize_map;  // NOLINT(misc-const-correctness): its workspace changes
        for (std::size_t i = next++; i < heatmaps.count; i = next++)
            localize_map(heatmaps[i], gradient_maps[i], parameters, [&](const ScoredBox& box) { use(i, box); });
    });
}

}  // namespace

template <class Pixel>
void localize(Batch<float> heatmaps, Batch<Pixel> gradient_maps, Parameters parameters, std::int64_t threads,
              ScoredBox* boxes) {
    check(heatmaps, gradient_maps, parameters, threads);
    parameters.selection.max_boxes = 1;
    std::fill_n(boxes, heatmaps.count, ScoredBox{});
    localize_each(heatmaps, gradient_maps, parameters, threads,
                  [=](std::size_t i, const ScoredBox& box) { boxes[i] = box; });
}

template <class Pixel>
std::vector<std::vector<ScoredBox>> localize_many(Batch<float> heatmaps, Batch<Pixel> gradient_maps,
                                                  const Parameters& parameters, std::int64_t threads) {
    check(heatmaps, gradient_maps, parameters, threads);
    std::vector<std::vector<ScoredBox>> boxes(heatmaps.count);
    localize_each(heatmaps, gradient_maps, parameters, threads,
                  [&](std::size_t i, const ScoredBox& box) { boxes[i].push_back(box); });
    return boxes;
}

template void localize(Batch<float>, Batch<std::uint8_t>, Parameters, std::int64_t, ScoredBox*);
template void localize(Batch<float>, Batch<float>, Parameters, std::int64_t, ScoredBox*);
template std::vector<std::vector<ScoredBox>> localize_many(Batch<float>, Batch<std::uint8_t>, const Parameters&,
                                                           std::int64_t);
template std::vector<std::vector<ScoredBox>> localize_many(Batch<float>, Batch<float>, const Parameters&, std::int64_t);

}  // namespace crosseai::postproc
