// Tests of the C++ core without Python or a test framework. Run by ctest, best under sanitizers.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <tuple>
#include <vector>

#include "check.hpp"
#include "crosseai/postproc/localize.hpp"
#include "crosseai/postproc/rectangles.hpp"
#include "crosseai/postproc/selection.hpp"

namespace {

using namespace crosseai::postproc;

std::atomic<std::size_t> allocations{0};  // by operator new

using Pixels = std::vector<std::uint8_t>;

std::int64_t ones(const Pixels& mask, std::int32_t width, const Box& box) {
    std::int64_t count = 0;
    for (std::int32_t y = box.y0; y < box.y1; ++y)
        for (std::int32_t x = box.x0; x < box.x1; ++x)
            count += mask[static_cast<std::size_t>(y) * static_cast<std::size_t>(width) + static_cast<std::size_t>(x)];
    return count;
}

/// Largest rectangle of ones by trying every one, in the order of the tie rule.
Box brute_force(const Pixels& mask, std::int32_t height, std::int32_t width) {
    Box best;
    for (std::int32_t y0 = 0; y0 < height; ++y0)
        for (std::int32_t x0 = 0; x0 < width; ++x0)
            for (std::int32_t y1 = y0 + 1; y1 <= height; ++y1)
                for (std::int32_t x1 = x0 + 1; x1 <= width; ++x1) {
                    const Box box{x0, y0, x1, y1};
                    if (box.area() > best.area() && ones(mask, width, box) == box.area()) best = box;
                }
    return best;
}

Pixels random_mask(std::mt19937& random, std::int32_t height, std::int32_t width) {
    const auto share = std::uniform_real_distribution<>(0.2, 1.0)(random);
    std::bernoulli_distribution one(share);
    Pixels mask(static_cast<std::size_t>(height * width));
    for (auto& pixel : mask) pixel = one(random);
    return mask;
}

void rectangles_equal_brute_force() {
    std::mt19937 random(1);
    std::uniform_int_distribution<std::int32_t> side(1, 10);
    RectangleSearch search;
    std::vector<Box> candidates;
    for (int round = 0; round < 3000; ++round) {
        const std::int32_t height = side(random);
        const std::int32_t width = side(random);
        Pixels left = random_mask(random, height, width);
        const MaskView mask{left.data(), static_cast<std::size_t>(height), static_cast<std::size_t>(width)};
        maximal_rectangles(mask, 100, 1, search, candidates);
        for (const Box& candidate : candidates) {
            CHECK(candidate == brute_force(left, height, width));
            for (std::int32_t y = candidate.y0; y < candidate.y1; ++y)
                std::fill_n(left.data() + std::ptrdiff_t{y} * width + candidate.x0, candidate.x1 - candidate.x0,
                            std::uint8_t{0});
        }
        CHECK(std::none_of(left.begin(), left.end(), [](auto pixel) { return pixel != 0; }));
    }
}

void expansion_stays_inside_and_never_shrinks() {
    std::mt19937 random(2);
    std::uniform_int_distribution<std::int32_t> side(1, 40);
    Expansion expand;
    for (int round = 0; round < 1000; ++round) {
        const std::int32_t height = side(random);
        const std::int32_t width = side(random);
        const Pixels mask = random_mask(random, height, width);
        expand.start({mask.data(), static_cast<std::size_t>(height), static_cast<std::size_t>(width)});
        const auto x0 = std::uniform_int_distribution<std::int32_t>(0, width - 1)(random);
        const auto y0 = std::uniform_int_distribution<std::int32_t>(0, height - 1)(random);
        const Box box{x0, y0, x0 + 1, y0 + 1};
        const Box grown = expand(box);
        CHECK(0 <= grown.x0 && grown.x0 <= box.x0 && box.x1 <= grown.x1 && grown.x1 <= width);
        CHECK(0 <= grown.y0 && grown.y0 <= box.y0 && box.y1 <= grown.y1 && grown.y1 <= height);
        CHECK(2 * (ones(mask, width, grown) - ones(mask, width, box)) >= grown.area() - box.area());
    }
}

void greatest_sides_do_not_overflow() {
    RectangleSearch search;
    std::vector<Box> candidates;
    Expansion expand;
    const auto side = static_cast<std::int32_t>(max_side);
    const Pixels line(max_side, 1);
    for (const MaskView mask : {MaskView{line.data(), 1, max_side}, MaskView{line.data(), max_side, 1}}) {
        maximal_rectangles(mask, 8, 1, search, candidates);
        const Box whole = mask.height == 1 ? Box{0, 0, side, 1} : Box{0, 0, 1, side};
        CHECK(candidates == std::vector<Box>{whole});
        expand.start(mask);
        CHECK(expand(Box{0, 0, 1, 1}) == whole);
    }
}

double share(std::mt19937& random) { return std::uniform_real_distribution<>(0.0, 1.0)(random); }

/// The paper's half of the time, else anything that is allowed.
Parameters any_parameters(std::mt19937& random, bool pixels_have_sign) {
    Parameters parameters;
    parameters.t = share(random);
    parameters.threshold = share(random);
    parameters.candidates.max_candidates = 1 + static_cast<std::int64_t>(random() % 20);
    parameters.candidates.min_area = 1 + static_cast<std::int64_t>(random() % 20);
    if (random() % 2) return parameters;
    parameters.gradient = {pixels_have_sign && random() % 2, 100.0 * (1.0 - 0.999 * share(random)),
                           0.1 + 2.0 * share(random), share(random)};
    parameters.closing = share(random);
    parameters.candidates.kind = static_cast<Candidates>(random() % 3);
    parameters.candidates.min_area_share = 0.2 * share(random);
    parameters.selection = {share(random), share(random), 1 + static_cast<std::int64_t>(random() % 5)};
    return parameters;
}

/// Random sizes, scales and parameters, as a fuzzer would draw them: the sanitizers and these invariants must hold.
template <class Pixel>
void any_maps_give_boxes_inside() {
    std::mt19937 random(3);
    std::uniform_int_distribution<std::size_t> side(1, 50);
    constexpr float extremes[] = {0.0F, -1.0F, 1e-45F, 3e38F, -3e38F, 1e-7F, 255.0F};
    for (int round = 0; round < 500; ++round) {
        const std::size_t count = side(random) % 4;
        const std::size_t height = side(random);
        const std::size_t width = side(random);
        const std::size_t coarse_height = side(random);
        const std::size_t coarse_width = side(random);
        std::vector<float> heat(count * coarse_height * coarse_width);
        for (auto& pixel : heat) pixel = extremes[random() % 7] * static_cast<float>(share(random));
        std::vector<Pixel> pixels(count * height * width);
        for (auto& pixel : pixels)
            pixel =
                sizeof(Pixel) == 1 ? static_cast<Pixel>(random() % 256) : static_cast<Pixel>(extremes[random() % 7]);
        const Parameters parameters = any_parameters(random, sizeof(Pixel) > 1);
        const Batch<float> heatmaps{heat.data(), count, coarse_height, coarse_width};
        const Batch<Pixel> gradients{pixels.data(), count, height, width};
        std::vector<ScoredBox> best(count);
        localize(heatmaps, gradients, parameters, 2, best.data());
        const auto several = localize_many(heatmaps, gradients, parameters, 2);
        CHECK(several.size() == count);
        for (std::size_t i = 0; i < count; ++i) {
            const auto& boxes = several[i];
            CHECK(boxes.size() <= static_cast<std::size_t>(parameters.selection.max_boxes));
            CHECK(best[i].box == (boxes.empty() ? Box{} : boxes.front().box));
            CHECK(best[i].score == (boxes.empty() ? 0.0F : boxes.front().score));
            for (std::size_t k = 0; k < boxes.size(); ++k) {
                const auto& [box, score] = boxes[k];
                CHECK(0 <= box.x0 && box.x0 < box.x1 && box.x1 <= static_cast<std::int32_t>(width));
                CHECK(0 <= box.y0 && box.y0 < box.y1 && box.y1 <= static_cast<std::int32_t>(height));
                CHECK(score > 0.0F && score < 255.01F);
                CHECK(box.area() >= parameters.candidates.min_area);
                for (std::size_t other = 0; other < k; ++other) CHECK(!box.overlaps(boxes[other].box));
            }
        }
    }
}

void bad_maps_are_refused() {
    float heat = 0.0F;
    std::uint8_t gradient = 0;
    ScoredBox box{{1, 2, 3, 4}, 5.0F};
    const auto refused = [&](const Parameters& parameters, std::int64_t threads, std::size_t height) {
        try {
            localize<std::uint8_t>({&heat, 1, 1, 1}, {&gradient, 1, height, 1}, parameters, threads, &box);
        } catch (const InvalidMap&) {
            return box.score == 5.0F;  // nothing was written
        }
        return false;
    };
    const auto refused_with = [&](auto change) {
        Parameters parameters;
        change(parameters);
        return refused(parameters, 1, 1);
    };
    CHECK(refused_with([](Parameters& p) { p.t = -0.1; }));
    CHECK(refused_with([](Parameters& p) { p.t = std::numeric_limits<double>::quiet_NaN(); }));
    CHECK(refused_with([](Parameters& p) { p.threshold = 1.1; }));
    CHECK(refused_with([](Parameters& p) { p.gradient.positive = true; }));
    CHECK(refused_with([](Parameters& p) { p.gradient.percentile = 0.0; }));
    CHECK(refused_with([](Parameters& p) { p.gradient.percentile = 100.1; }));
    CHECK(refused_with([](Parameters& p) { p.gradient.power = 0.0; }));
    CHECK(refused_with([](Parameters& p) { p.gradient.sigma = 1.1; }));
    CHECK(refused_with([](Parameters& p) { p.closing = 1.1; }));
    CHECK(refused_with([](Parameters& p) { p.candidates.max_candidates = 0; }));
    CHECK(refused_with([](Parameters& p) { p.candidates.min_area = 0; }));
    CHECK(refused_with([](Parameters& p) { p.candidates.min_area_share = -0.1; }));
    CHECK(refused_with([](Parameters& p) { p.selection.area_power = -0.1; }));
    CHECK(refused_with([](Parameters& p) { p.selection.score_ratio = 1.1; }));
    CHECK(refused_with([](Parameters& p) { p.selection.max_boxes = 0; }));
    CHECK(refused({}, -1, 1));
    CHECK(refused({}, 0, 0));
    CHECK(refused({}, 0, max_side + 1));
    heat = std::numeric_limits<float>::infinity();
    CHECK(refused({}, 0, 1));
    heat = 0.0F;
    CHECK(!refused({}, 0, 1));
    CHECK(box.box == Box{} && box.score == 0.0F);
}

void only_the_first_map_allocates() {
    std::mt19937 random(4);
    constexpr std::size_t count = 12;
    constexpr std::size_t side = 60;
    std::vector<float> heat(count * 49);
    for (auto& pixel : heat) pixel = static_cast<float>(random() % 1000);
    std::vector<std::uint8_t> pixels(count * side * side);
    for (auto& pixel : pixels) pixel = static_cast<std::uint8_t>(random() % 256);
    std::fill_n(pixels.begin(), side * side, std::uint8_t{0});  // so that the first map is no harder than the others
    for (std::size_t i = 0; i < side * side; i += 2) pixels[i] = 255;
    std::vector<ScoredBox> boxes(count);
    const auto allocations_of = [&](std::size_t maps, const Parameters& parameters) {
        const std::size_t before = allocations;
        localize<std::uint8_t>({heat.data(), maps, 7, 7}, {pixels.data(), maps, side, side}, parameters, 1,
                               boxes.data());
        return allocations - before;
    };
    Parameters beyond;
    beyond.gradient = {false, 99.0, 0.5, 0.05};
    beyond.closing = 0.02;
    for (const Parameters& parameters : {Parameters{}, beyond}) {
        CHECK(allocations_of(1, parameters) > 0);
        const std::size_t of_a_call = allocations_of(1, parameters);
        CHECK(allocations_of(count, parameters) == of_a_call);
    }
}

}  // namespace

void* operator new(std::size_t size) {
    ++allocations;
    if (void* memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main() {
    rectangles_equal_brute_force();
    expansion_stays_inside_and_never_shrinks();
    greatest_sides_do_not_overflow();
    any_maps_give_boxes_inside<std::uint8_t>();
    any_maps_give_boxes_inside<float>();
    bad_maps_are_refused();
    only_the_first_map_allocates();
    std::puts("all tests passed");
}
