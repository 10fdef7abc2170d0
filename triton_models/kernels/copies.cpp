#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels.hpp"
#include "postproc_ext/src/multiversion.hpp"
#include "shapes.hpp"

namespace crosseai::kernels {
namespace {

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

/// A block to be copied between tensors of which it is a part: as runs of numbers that lie together in both.
class Copy {
 public:
    /// @param steps Of its indices in `x`, along each dimension; in `y` they are all 1.
    Copy(const Shape& x, const Shape& block, const Shape& y, const Shape& steps) {
        dimensions_.push_back({1, 1, 1});  // a run of one number, if no more lie together
        std::size_t x_size = 1;
        std::size_t y_size = 1;
        for (std::size_t d = block.size(); d-- > 0;) {
            const Dimension added{static_cast<std::size_t>(block[d]), x_size * static_cast<std::size_t>(steps[d]),
                                  y_size};
            Dimension& last = dimensions_.back();
            if (last.size * last.x_step == added.x_step && last.size * last.y_step == added.y_step)
                last.size *= added.size;
            else if (added.size != 1)
                dimensions_.push_back(added);
            x_size *= static_cast<std::size_t>(x[d]);
            y_size *= static_cast<std::size_t>(y[d]);
        }
        dimensions_.resize(std::max<std::size_t>(2, dimensions_.size()), {1, 0, 0});
        for (std::size_t d = 1; d < dimensions_.size(); ++d) runs_ *= dimensions_[d].size;
    }

    void operator()(const float* x, float* y) const { copy(x, y, 0, runs_); }

    void operator()(const float* x, float* y, const ForEach& for_each) const {
        const std::size_t each = std::max<std::size_t>(1, kPiece / (dimensions_[0].size + 1));
        for_each(pieces(runs_, each),
                 [&](std::size_t piece) { copy(x, y, piece * each, std::min(runs_, (piece + 1) * each)); });
    }

 private:
    /// Copies the runs from `at` to `last`, the latter excluded.
    void copy(const float* x, float* y, std::size_t at, std::size_t last) const {
        const Dimension& inner = dimensions_[1];
        while (at < last) {
            const std::size_t first = at % inner.size;
            const std::size_t count = std::min(last - at, inner.size - first);
            const float* from = x + first * inner.x_step;
            float* to = y + first * inner.y_step;
            std::size_t row = at / inner.size;
            for (std::size_t d = 2; d < dimensions_.size(); ++d) {
                from += row % dimensions_[d].size * dimensions_[d].x_step;
                to += row % dimensions_[d].size * dimensions_[d].y_step;
                row /= dimensions_[d].size;
            }
            copy_runs(from, inner.x_step, to, inner.y_step, count, dimensions_[0].size);
            at += count;
        }
    }

    std::vector<Dimension> dimensions_;  // from the innermost
    std::size_t runs_ = 1;
};

/// One step along each dimension.
Shape one_by_one(const Shape& shape) {
    Shape steps(shape.size(), 1);
    return steps;
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
    const Shape& first = shapes.at(0);
    Shape whole = first;
    std::int64_t size = 0;
    for (const auto& shape : shapes) {
        if (shape.size() != first.size() || axis >= shape.size())
            throw std::invalid_argument("expected shapes of one rank, found " + text(first) + " and " + text(shape));
        whole[axis] = shape[axis];
        if (shape != whole)
            throw std::invalid_argument("expected sizes that differ in dimension " + std::to_string(axis) +
                                        " alone, found " + text(first) + " and " + text(shape));
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
        Copy(shapes[i], shapes[i], whole, one_by_one(whole))(parts[i], y, for_each);
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

void pad(const float* x, const Shape& shape, const Shape& pads, float value, float* y, const ForEach& for_each) {
    const std::size_t rank = shape.size();
    const Shape result = padded(shape, pads);
    std::size_t outer = 0;  // dimensions that are not padded: each index of them is a tensor of its own
    while (outer + 1 < rank && pads[outer] == 0 && pads[rank + outer] == 0) ++outer;
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
    const Copy copy(x_shape, block, y_shape, one_by_one(block));
    const bool empty = numbers(block, 0, block.size()) == 0;
    const float* const from = x + (empty ? 0 : place(x_first, x_shape));
    float* const to = y + (empty ? 0 : place(y_first, y_shape));
    const std::size_t x_size = numbers(x_shape, 0, x_shape.size());
    const std::size_t y_size = numbers(y_shape, 0, y_shape.size());
    const std::size_t tensors = numbers(shape, 0, outer);
    const std::size_t each = std::max<std::size_t>(1, kPiece / (y_size + 1));
    for_each(pieces(tensors, each), [&](std::size_t piece) {
        for (std::size_t i = piece * each; i < std::min(tensors, (piece + 1) * each); ++i) {
            std::fill_n(y + i * y_size, y_size, value);
            if (!empty) copy(from + i * x_size, to + i * y_size);
        }
    });
}

std::vector<Span> spans(const Shape& shape, const Shape& starts, const Shape& ends, const Shape& axes,
                        const Shape& steps) {
    if (starts.size() != axes.size() || ends.size() != axes.size() || steps.size() != axes.size())
        throw std::invalid_argument("expected a start, an end and a step for each of the axes " + text(axes) +
                                    ", found " + text(starts) + ", " + text(ends) + " and " + text(steps));
    std::vector<Span> part;
    part.reserve(shape.size());
    for (const auto size : shape) part.push_back({0, size, 1});
    for (std::size_t i = 0; i < axes.size(); ++i) {
        const auto axis = static_cast<std::size_t>(axes[i]);
        if (axes[i] < 0 || axis >= shape.size() || steps[i] < 1)
            throw std::invalid_argument("expected axes of " + text(shape) + " and positive steps, found " + text(axes) +
                                        " and " + text(steps));
        const std::int64_t size = shape[axis];
        const auto inside = [&](std::int64_t index) {
            return std::clamp<std::int64_t>(index < 0 ? index + size : index, 0, size);
        };
        const std::int64_t first = inside(starts[i]);
        const std::int64_t count = std::max<std::int64_t>(0, inside(ends[i]) - first);
        part[axis] = {first, count / steps[i] + (count % steps[i] == 0 ? 0 : 1), steps[i]};
    }
    return part;
}

void slice(const float* x, const Shape& shape, const std::vector<Span>& part, float* y, const ForEach& for_each) {
    Shape first;
    Shape size;
    Shape step;
    for (const auto& span : part) {
        first.push_back(span.first);
        size.push_back(span.size);
        step.push_back(span.step);
    }
    if (numbers(size, 0, size.size()) > 0) Copy(shape, size, size, step)(x + place(first, shape), y, for_each);
}

}  // namespace crosseai::kernels
