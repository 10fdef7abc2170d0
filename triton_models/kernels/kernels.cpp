#include "kernels.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "postproc_ext/src/multiversion.hpp"

namespace crosseai::kernels {
namespace {

constexpr std::size_t kPiece = 16384;  // numbers that a thread takes at a time: they fit into its second cache

/// Numbers in the dimensions from `first` to `last`, the latter excluded.
std::size_t numbers(const Shape& shape, std::size_t first, std::size_t last) {
    std::size_t product = 1;
    for (std::size_t d = first; d < last; ++d) product *= static_cast<std::size_t>(shape[d]);
    return product;
}

std::string text(const Shape& shape) {
    std::string listed;
    for (const auto size : shape) listed += (listed.empty() ? "" : ", ") + std::to_string(size);
    return "[" + listed + "]";
}

std::size_t pieces(std::size_t count, std::size_t each) { return (count + each - 1) / each; }

void one_after_another(std::size_t count, const Task& task) {
    for (std::size_t i = 0; i < count; ++i) task(i);
}

/// With as many dimensions as the result it is broadcast to.
Shape aligned(const Shape& shape, std::size_t rank) {
    Shape longer(rank - shape.size(), 1);
    longer.insert(longer.end(), shape.begin(), shape.end());
    return longer;
}

/// Where a row of a result begins in an (aligned) operand; a row is all dimensions from `outer` on.
std::size_t start_of_row(std::size_t row, const Shape& result, const Shape& operand, std::size_t outer) {
    std::size_t start = 0;
    std::size_t stride = numbers(operand, outer, operand.size());
    for (std::size_t d = outer; d-- > 0;) {
        const auto size = static_cast<std::size_t>(result[d]);
        if (operand[d] != 1) start += row % size * stride;
        stride *= static_cast<std::size_t>(operand[d]);
        row /= size;
    }
    return start;
}

CROSSEAI_MULTIVERSION void mask_row(const float* x, const std::uint8_t* keep, std::size_t count, float* y) {
    for (std::size_t i = 0; i < count; ++i) y[i] = keep[i] != 0 ? x[i] : 0.0F;
}

constexpr std::size_t kLanes = 8;
using Numbers = float __attribute__((vector_size(kLanes * sizeof(float))));
using Places = std::int32_t __attribute__((vector_size(kLanes * sizeof(std::int32_t))));

/// First maxima of `vectors * kLanes` columns side by side: few enough for registers.
template <std::size_t vectors>
inline __attribute__((always_inline)) void first_maxima(const float* x, std::size_t length, std::size_t stride,
                                                        std::int64_t* y) {
    Numbers best[vectors];
    Places place[vectors] = {};
    for (std::size_t i = 0; i < vectors; ++i) std::memcpy(&best[i], x + i * kLanes, sizeof(Numbers));
    for (std::size_t k = 1; k < length; ++k) {
        const Places here = Places{} + static_cast<std::int32_t>(k);
        for (std::size_t i = 0; i < vectors; ++i) {
            Numbers row;  // each vector loaded for itself: an array would go by way of the stack
            std::memcpy(&row, x + k * stride + i * kLanes, sizeof(row));
            place[i] = row > best[i] ? here : place[i];
            best[i] = row > best[i] ? row : best[i];
        }
    }
    for (std::size_t i = 0; i < vectors; ++i)
        for (std::size_t lane = 0; lane < kLanes; ++lane) y[i * kLanes + lane] = place[i][lane];
}

CROSSEAI_MULTIVERSION void maxima_of_columns(const float* x, std::size_t length, std::size_t stride,
                                             std::size_t columns, std::int64_t* y) {
    std::size_t i = 0;
    for (; i + 4 * kLanes <= columns; i += 4 * kLanes) first_maxima<4>(x + i, length, stride, y + i);
    for (; i + 2 * kLanes <= columns; i += 2 * kLanes) first_maxima<2>(x + i, length, stride, y + i);
    for (; i + kLanes <= columns; i += kLanes) first_maxima<1>(x + i, length, stride, y + i);
    for (; i < columns; ++i) {
        std::size_t best = 0;
        for (std::size_t k = 1; k < length; ++k)
            if (x[k * stride + i] > x[best * stride + i]) best = k;
        y[i] = static_cast<std::int64_t>(best);
    }
}

/// One dimension of a block of numbers that is copied: how many there are, and how far apart they lie.
struct Dimension {
    std::size_t size, x_step, y_step;
};

/// Copies runs of numbers; the channels of a block, of which there are many, in a few instructions each.
CROSSEAI_MULTIVERSION void copy_runs(const float* x, std::size_t x_step, float* y, std::size_t y_step,
                                     std::size_t count, std::size_t size) {
    if (size == 16) {
        for (std::size_t i = 0; i < count; ++i) std::copy_n(x + i * x_step, 16, y + i * y_step);
    } else if (size == 8) {
        for (std::size_t i = 0; i < count; ++i) std::copy_n(x + i * x_step, 8, y + i * y_step);
    } else {
        for (std::size_t i = 0; i < count; ++i) std::copy_n(x + i * x_step, size, y + i * y_step);
    }
}

/// Copies a block between tensors of which it is a part.
void copy_block(const float* x, const Shape& x_shape, const Shape& block, float* y, const Shape& y_shape,
                const ForEach& for_each) {
    std::vector<Dimension> dimensions;  // from the innermost, those that lie next to each other in both joined
    std::size_t x_step = 1;
    std::size_t y_step = 1;
    for (std::size_t d = block.size(); d-- > 0;) {
        const auto size = static_cast<std::size_t>(block[d]);
        const bool joins = !dimensions.empty() && dimensions.back().size * dimensions.back().x_step == x_step &&
                           dimensions.back().size * dimensions.back().y_step == y_step;
        if (joins)
            dimensions.back().size *= size;
        else if (size != 1 || dimensions.empty())
            dimensions.push_back({size, x_step, y_step});
        x_step *= static_cast<std::size_t>(x_shape[d]);
        y_step *= static_cast<std::size_t>(y_shape[d]);
    }
    dimensions.resize(std::max<std::size_t>(2, dimensions.size()), {1, 0, 0});
    const std::size_t size = dimensions[0].size;
    const Dimension runs = dimensions[1];
    std::size_t all = runs.size;
    for (std::size_t d = 2; d < dimensions.size(); ++d) all *= dimensions[d].size;
    const std::size_t each = std::max<std::size_t>(1, kPiece / (size + 1));
    for_each(pieces(all, each), [&](std::size_t piece) {
        const std::size_t last = std::min(all, (piece + 1) * each);
        for (std::size_t at = piece * each; at < last;) {
            const std::size_t first = at % runs.size;
            const std::size_t count = std::min(last - at, runs.size - first);
            const float* from = x + first * runs.x_step;
            float* to = y + first * runs.y_step;
            std::size_t row = at / runs.size;
            for (std::size_t d = 2; d < dimensions.size(); ++d) {
                from += row % dimensions[d].size * dimensions[d].x_step;
                to += row % dimensions[d].size * dimensions[d].y_step;
                row /= dimensions[d].size;
            }
            copy_runs(from, runs.x_step, to, runs.y_step, count, size);
            at += count;
        }
    });
}

/// Where a number is in memory.
std::size_t place(const Shape& indices, const Shape& shape) {
    std::size_t at = 0;
    for (std::size_t d = 0; d < shape.size(); ++d)
        at = at * static_cast<std::size_t>(shape[d]) + static_cast<std::size_t>(indices[d]);
    return at;
}

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

Shape broadcast(const Shape& a, const Shape& b) {
    const std::size_t rank = std::max(a.size(), b.size());
    const Shape other = aligned(a, rank);
    Shape result = aligned(b, rank);
    for (std::size_t d = 0; d < rank; ++d) {
        if (other[d] != result[d] && other[d] != 1 && result[d] != 1)
            throw std::invalid_argument("expected shapes that can be broadcast, found " + text(a) + " and " + text(b));
        if (result[d] == 1) result[d] = other[d];
    }
    return result;
}

void mask(const float* x, const Shape& x_shape, const std::uint8_t* keep, const Shape& keep_shape, float* y,
          const ForEach& for_each) {
    const Shape result = broadcast(x_shape, keep_shape);
    const Shape x_aligned = aligned(x_shape, result.size());
    const Shape keep_aligned = aligned(keep_shape, result.size());
    std::size_t outer = result.size();
    while (outer > 0 && x_aligned[outer - 1] == keep_aligned[outer - 1]) --outer;
    const std::size_t row_size = numbers(result, outer, result.size());
    const std::size_t all = numbers(result, 0, result.size());
    for_each(pieces(all, kPiece), [&](std::size_t piece) {
        const std::size_t last = std::min(all, (piece + 1) * kPiece);
        for (std::size_t at = piece * kPiece; at < last;) {
            const std::size_t row = at / row_size;
            const std::size_t column = at % row_size;
            const std::size_t count = std::min(last - at, row_size - column);
            mask_row(x + start_of_row(row, result, x_aligned, outer) + column,
                     keep + start_of_row(row, result, keep_aligned, outer) + column, count, y + at);
            at += count;
        }
    });
}

void arg_max(const float* x, const Shape& shape, std::size_t axis, std::int64_t* y, const ForEach& for_each) {
    const auto length = static_cast<std::size_t>(shape[axis]);
    const std::size_t rows = numbers(shape, 0, axis);
    const std::size_t columns = numbers(shape, axis + 1, shape.size());
    if (length == 0) throw std::invalid_argument("expected a dimension to find maxima along, found " + text(shape));
    constexpr std::size_t kColumns = 1024;  // at a time
    const std::size_t spans = pieces(columns, kColumns);
    const std::size_t each = std::max<std::size_t>(1, kPiece / (length * std::min(columns, kColumns) + 1));  // spans
    for_each(pieces(rows * spans, each), [&](std::size_t piece) {
        for (std::size_t i = piece * each; i < std::min(rows * spans, (piece + 1) * each); ++i) {
            const std::size_t row = i / spans;
            const std::size_t column = i % spans * kColumns;
            maxima_of_columns(x + row * length * columns + column, length, columns,
                              std::min(kColumns, columns - column), y + row * columns + column);
        }
    });
}

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

Shape concatenated(const std::vector<Shape>& shapes, std::size_t axis) {
    Shape whole = shapes.at(0);
    std::int64_t size = 0;
    for (const auto& shape : shapes) {
        if (shape.size() != whole.size() || axis >= shape.size())
            throw std::invalid_argument("expected shapes of one rank, found " + text(whole) + " and " + text(shape));
        whole[axis] = shape[axis];
        if (shape != whole)
            throw std::invalid_argument("expected sizes that differ in dimension " + std::to_string(axis) +
                                        " alone, found " + text(whole) + " and " + text(shape));
        size += shape[axis];
    }
    whole[axis] = size;
    return whole;
}

void concat(const std::vector<const float*>& parts, const std::vector<Shape>& shapes, std::size_t axis, float* y,
            const ForEach& for_each) {
    const Shape whole = concatenated(shapes, axis);
    const std::size_t step = numbers(whole, axis + 1, whole.size());
    for (std::size_t i = 0; i < parts.size(); ++i) {
        copy_block(parts[i], shapes[i], shapes[i], y, whole, for_each);
        y += static_cast<std::size_t>(shapes[i][axis]) * step;
    }
}

Shape padded(const Shape& shape, const Shape& pads) {
    const std::size_t rank = shape.size();
    if (pads.size() != 2 * rank)
        throw std::invalid_argument("expected two pads a dimension of " + text(shape) + ", found " + text(pads));
    Shape result = shape;
    for (std::size_t d = 0; d < rank; ++d) {
        result[d] += pads[d] + pads[rank + d];
        if (shape[d] + std::min(pads[d], pads[rank + d]) < 0 || result[d] < 0)
            throw std::invalid_argument("expected pads that leave something of " + text(shape) + ", found " +
                                        text(pads));
    }
    return result;
}

void pad(const float* x, const Shape& shape, const Shape& pads, float* y, const ForEach& for_each) {
    const std::size_t rank = shape.size();
    const Shape result = padded(shape, pads);
    std::size_t outer = 0;  // dimensions that are not padded: each index of them is a tensor of its own
    while (outer < rank && pads[outer] == 0 && pads[rank + outer] == 0) ++outer;
    const Shape x_shape(shape.begin() + static_cast<std::ptrdiff_t>(outer), shape.end());
    const Shape y_shape(result.begin() + static_cast<std::ptrdiff_t>(outer), result.end());
    Shape x_first(rank - outer);
    Shape y_first(rank - outer);
    Shape block(rank - outer);
    for (std::size_t d = outer; d < rank; ++d) {
        x_first[d - outer] = std::max<std::int64_t>(0, -pads[d]);
        y_first[d - outer] = std::max<std::int64_t>(0, pads[d]);
        block[d - outer] = shape[d] - x_first[d - outer] - std::max<std::int64_t>(0, -pads[rank + d]);
    }
    const std::size_t x_size = numbers(x_shape, 0, x_shape.size());
    const std::size_t y_size = numbers(y_shape, 0, y_shape.size());
    for_each(numbers(shape, 0, outer), [&](std::size_t i) {
        float* const own = y + i * y_size;
        std::fill_n(own, y_size, 0.0F);
        if (numbers(block, 0, block.size()) > 0)
            copy_block(x + i * x_size + place(x_first, x_shape), x_shape, block, own + place(y_first, y_shape), y_shape,
                       one_after_another);
    });
}

}  // namespace crosseai::kernels
