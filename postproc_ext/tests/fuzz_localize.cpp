// libFuzzer target: any bytes as maps, mask and parameters. Whatever is accepted must keep the algorithm's promises.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "crosseai/postproc/localize.hpp"
#include "crosseai/postproc/rectangles.hpp"
#include "crosseai/postproc/selection.hpp"

namespace {

using namespace crosseai::postproc;

void require(bool holds) {
    if (!holds) std::abort();
}

/// Takes values from the fuzzer's bytes; zeros when they run out.
class Source {
 public:
    Source(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    template <class Value>
    Value take() {
        Value value{};
        const std::size_t count = std::min(sizeof value, size_);
        if (count > 0) std::memcpy(&value, data_, count);
        data_ += count;
        size_ -= count;
        return value;
    }

    /// Mostly a share that is allowed, now and then any double.
    double share() {
        const auto byte = take<std::uint8_t>();
        return byte > 250 ? take<double>() : byte / 250.0;
    }

    std::size_t side() { return take<std::uint8_t>() % 40U; }

    template <class Value>
    std::vector<Value> pixels(std::size_t count) {
        std::vector<Value> values(count);
        for (Value& value : values) value = take<Value>();
        return values;
    }

 private:
    const std::uint8_t* data_;
    std::size_t size_;
};

bool inside(const Box& box, std::size_t height, std::size_t width) {
    return 0 <= box.x0 && box.x0 < box.x1 && box.x1 <= static_cast<std::int64_t>(width) && 0 <= box.y0 &&
           box.y0 < box.y1 && box.y1 <= static_cast<std::int64_t>(height);
}

void check_rectangles(Source& source) {
    const std::size_t height = source.side() + 1;
    const std::size_t width = source.side() + 1;
    auto mask = source.pixels<std::uint8_t>(height * width);
    for (auto& pixel : mask) pixel &= 1;
    const MaskView view{mask.data(), height, width};
    RectangleSearch search;
    std::vector<Box> boxes;
    maximal_rectangles(view, 1 + source.side(), 1, search, boxes);
    Expansion expand;
    expand.start(view);
    auto last_area = static_cast<std::int64_t>(height * width);
    for (const Box& box : boxes) {
        require(inside(box, height, width) && box.area() <= last_area);
        last_area = box.area();
        const Box grown = expand(box);
        require(inside(grown, height, width) && grown.x0 <= box.x0 && grown.y0 <= box.y0 && grown.x1 >= box.x1 &&
                grown.y1 >= box.y1);
    }
    for (const Box& box : boxes)  // disjoint and all ones: each pixel can be cleared once
        for (auto y = static_cast<std::size_t>(box.y0); y < static_cast<std::size_t>(box.y1); ++y)
            for (auto x = static_cast<std::size_t>(box.x0); x < static_cast<std::size_t>(box.x1); ++x)
                require(std::exchange(mask[y * width + x], std::uint8_t{0}) == 1);
}

Parameters take_parameters(Source& source) {
    Parameters parameters;
    parameters.t = source.share();
    parameters.threshold = source.share();
    parameters.gradient = {source.take<std::uint8_t>() % 4 == 1, 100.0 * source.share(), 2.0 * source.share(),
                           source.share()};
    parameters.closing = source.share();
    parameters.candidates = {static_cast<Candidates>(source.take<std::uint8_t>() % 3), source.take<std::uint8_t>(),
                             source.take<std::uint8_t>() % 16, source.share()};
    parameters.selection = {source.share(), source.share(), source.take<std::uint8_t>()};
    return parameters;
}

template <class Pixel>
void check_localize(Source& source) {
    const std::size_t count = source.side() % 3;
    const std::size_t height = source.side();
    const std::size_t width = source.side();
    const std::size_t coarse_height = source.side();
    const std::size_t coarse_width = source.side();
    const Parameters parameters = take_parameters(source);
    const auto heatmaps = source.pixels<float>(count * coarse_height * coarse_width);
    const auto gradient_maps = source.pixels<Pixel>(count * height * width);
    const Batch<float> heat{heatmaps.data(), count, coarse_height, coarse_width};
    const Batch<Pixel> gradients{gradient_maps.data(), count, height, width};
    std::vector<ScoredBox> best(count);
    std::vector<std::vector<ScoredBox>> several;
    try {
        localize(heat, gradients, parameters, 1, best.data());
        several = localize_many(heat, gradients, parameters, 1);
    } catch (const InvalidMap&) {
        return;
    }
    for (std::size_t i = 0; i < count; ++i) {
        const auto& boxes = several[i];
        require(boxes.empty() ? best[i].box == Box{} && best[i].score == 0.0F : best[i].box == boxes.front().box);
        for (const auto& [box, score] : boxes) {
            require(inside(box, height, width) && score > 0.0F && score <= 256.0F);
            for (const auto& other : boxes) require(&other.box == &box || !box.overlaps(other.box));
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Source source(data, size);
    switch (source.take<std::uint8_t>() % 3) {
        case 0:
            check_rectangles(source);
            break;
        case 1:
            check_localize<std::uint8_t>(source);
            break;
        default:
            check_localize<float>(source);
    }
    return 0;
}
