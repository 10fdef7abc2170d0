#include "kernels.hpp"

#include <algorithm>
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

/// First maxima of `width` columns side by side: few enough for registers.
template <std::size_t width>
inline __attribute__((always_inline)) void first_maxima(const float* x, std::size_t length, std::size_t stride,
                                                        std::int64_t* y) {
    float best[width];
    std::int32_t place[width];
    for (std::size_t i = 0; i < width; ++i) {
        best[i] = x[i];
        place[i] = 0;
    }
    for (std::size_t k = 1; k < length; ++k) {
        const float* const row = x + k * stride;
        for (std::size_t i = 0; i < width; ++i) {
            const bool better = row[i] > best[i];
            best[i] = better ? row[i] : best[i];
            place[i] = better ? static_cast<std::int32_t>(k) : place[i];
        }
    }
    for (std::size_t i = 0; i < width; ++i) y[i] = place[i];
}

CROSSEAI_MULTIVERSION void maxima_of_columns(const float* x, std::size_t length, std::size_t stride,
                                             std::size_t columns, std::int64_t* y) {
    std::size_t i = 0;
    for (; i + 64 <= columns; i += 64) first_maxima<64>(x + i, length, stride, y + i);
    for (; i + 16 <= columns; i += 16) first_maxima<16>(x + i, length, stride, y + i);
    for (; i + 8 <= columns; i += 8) first_maxima<8>(x + i, length, stride, y + i);
    for (; i < columns; ++i) first_maxima<1>(x + i, length, stride, y + i);
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
    const std::size_t widest = std::max<std::size_t>(64, kPiece / length / 64 * 64);  // columns at a time
    const std::size_t spans = pieces(columns, widest);
    const std::size_t each = std::max<std::size_t>(1, kPiece / (length * std::min(columns, widest) + 1));  // spans
    for_each(pieces(rows * spans, each), [&](std::size_t piece) {
        for (std::size_t i = piece * each; i < std::min(rows * spans, (piece + 1) * each); ++i) {
            const std::size_t row = i / spans;
            const std::size_t column = i % spans * widest;
            maxima_of_columns(x + row * length * columns + column, length, columns, std::min(widest, columns - column),
                              y + row * columns + column);
        }
    });
}

}  // namespace crosseai::kernels
