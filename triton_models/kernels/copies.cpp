#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels.hpp"
#include "postproc_ext/src/multiversion.hpp"
#include "shapes.hpp"

namespace crosseai::kernels {
namespace {

void one_after_another(std::size_t count, const Task& task) {
    for (std::size_t i = 0; i < count; ++i) task(i);
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

}  // namespace

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
