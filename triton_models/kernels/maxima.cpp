#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "kernels.hpp"
#include "postproc_ext/src/multiversion.hpp"
#include "shapes.hpp"

namespace crosseai::kernels {
namespace {

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

}  // namespace

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

}  // namespace crosseai::kernels
