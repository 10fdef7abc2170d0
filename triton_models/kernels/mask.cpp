#include <algorithm>
#include <stdexcept>

#include "kernels.hpp"
#include "postproc_ext/src/multiversion.hpp"
#include "shapes.hpp"

namespace crosseai::kernels {
namespace {

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

CROSSEAI_MULTIVERSION void compare_row(const float* x, std::size_t count, float threshold, std::uint8_t* y) {
    for (std::size_t i = 0; i < count; ++i) y[i] = x[i] > threshold ? 1 : 0;
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

void greater(const float* x, const Shape& shape, float threshold, std::uint8_t* y, const ForEach& for_each) {
    const std::size_t all = numbers(shape, 0, shape.size());
    for_each(pieces(all, kPiece), [&](std::size_t piece) {
        const std::size_t first = piece * kPiece;
        compare_row(x + first, std::min(kPiece, all - first), threshold, y + first);
    });
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

}  // namespace crosseai::kernels
