#include <algorithm>
#include <stdexcept>

#include "kernels.hpp"
#include "shapes.hpp"

namespace crosseai::kernels {
namespace {

/// Calls work(i, j) for each number i of `places` and its place j in the memory of a map.
template <class Work>
void for_places(const Shape& map, std::size_t axis, const std::int64_t* places, const Shape& shape,
                const ForEach& for_each, const Work& work) {
    const bool is_map = map.size() == 5 && axis >= 1 && axis <= 3;
    Shape expected = is_map ? Shape{map[0], map[1] * map[4], map[2], map[3]} : Shape{};
    const std::int64_t size = is_map ? expected[axis] : 0;
    if (is_map && !shape.empty()) {
        expected[0] = std::min(shape[0], map[0]);
        expected[axis] = 1;
    }
    if (!is_map || shape != expected)
        throw std::invalid_argument("expected one place along axis " + std::to_string(axis) + " of a map in blocks, " +
                                    text(map) + ", found " + text(shape));
    const std::int64_t block = map[4];
    const std::int64_t row = map[3] * block;
    const std::int64_t plane = map[2] * row;
    const auto channel = [&](std::int64_t c) { return c / block * plane + c % block; };
    const auto along_axis = [&](std::int64_t at) {
        if (at < 0) at += size;
        return axis == 1 ? channel(at) : at * (axis == 2 ? row : block);
    };
    const std::int64_t* const last = places + numbers(shape, 0, shape.size());
    const auto* const wrong = std::find_if(places, last, [&](std::int64_t at) { return at < -size || at >= size; });
    if (wrong != last)
        throw std::invalid_argument("expected places from " + std::to_string(-size) + " to " +
                                    std::to_string(size - 1) + ", found " + std::to_string(*wrong));
    const std::int64_t groups = axis == 1 ? shape[2] : map[1];  // rows, or blocks of channels
    for_each(static_cast<std::size_t>(shape[0] * groups), [&](std::size_t task) {
        const std::int64_t n = static_cast<std::int64_t>(task) / groups;
        const std::int64_t group = static_cast<std::int64_t>(task) % groups;
        const std::int64_t c_first = axis == 1 ? 0 : group * block;
        const std::int64_t h_first = axis == 1 ? group : 0;
        for (std::int64_t c = c_first; c < c_first + (axis == 1 ? 1 : block); ++c)
            for (std::int64_t h = h_first; h < (axis == 1 ? group + 1 : shape[2]); ++h) {
                const std::int64_t first = n * map[1] * plane + c_first * (plane / block) + (c - c_first) + h * row;
                const std::int64_t number = ((n * shape[1] + c) * shape[2] + h) * shape[3];
                for (std::int64_t w = 0; w < shape[3]; ++w)
                    work(number + w, first + w * block + along_axis(places[number + w]));
            }
    });
}

}  // namespace

void gather(const float* x, const Shape& x_shape, std::size_t axis, const std::int64_t* places, const Shape& shape,
            float* y, const ForEach& for_each) {
    for_places(x_shape, axis, places, shape, for_each, [&](std::int64_t i, std::int64_t j) { y[i] = x[j]; });
}

void scatter(const float* x, const Shape& x_shape, std::size_t axis, const std::int64_t* places, const Shape& shape,
             const float* updates, float* y, const ForEach& for_each) {
    const std::size_t all = numbers(x_shape, 0, x_shape.size());
    if (y != x)
        for_each(pieces(all, kPiece), [&](std::size_t piece) {
            std::copy(x + piece * kPiece, x + std::min(all, (piece + 1) * kPiece), y + piece * kPiece);
        });
    for_places(x_shape, axis, places, shape, for_each, [&](std::int64_t i, std::int64_t j) { y[j] = updates[i]; });
}

}  // namespace crosseai::kernels
