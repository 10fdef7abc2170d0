// What the reverse pass of a network does again and again, and ONNX Runtime has no fast operator for on a CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace crosseai::kernels {

/// Sizes of a tensor, which lies in memory without gaps, its last dimension innermost.
using Shape = std::vector<std::int64_t>;

using Task = std::function<void(std::size_t)>;

/// Calls a task with 0, 1, ..., count - 1, in any order and on any threads.
using ForEach = std::function<void(std::size_t count, const Task& task)>;

/// The shape of an elementwise result, by the rules of ONNX and NumPy.
/// @throws std::invalid_argument if the shapes do not go together.
Shape broadcast(const Shape& a, const Shape& b);

/// y = 1 where x is greater than a threshold, else 0.
void greater(const float* x, const Shape& shape, float threshold, std::uint8_t* y, const ForEach& for_each);

/// y = x where keep is not zero, else 0; x and keep are broadcast against each other.
///
/// One pass over the numbers, where a cast of the booleans and a product take two.
///
/// @param y May be `x`, if the result has its shape.
void mask(const float* x, const Shape& x_shape, const std::uint8_t* keep, const Shape& keep_shape, float* y,
          const ForEach& for_each);

/// Places of the first maxima along a dimension, which y lacks. A NaN wins only where it is first.
/// @throws std::invalid_argument if there is nothing along that dimension.
void arg_max(const float* x, const Shape& shape, std::size_t axis, std::int64_t* y, const ForEach& for_each);

/// Numbers of a map at one place along a dimension, as ONNX's `GatherElements` finds them.
///
/// @param x A map `[N, C, H, W]` whose channels lie in blocks: `[N, C / b, H, W, b]`.
/// @param axis 1, 2 or 3: of the map `[N, C, H, W]`.
/// @param places `[M, C, H, W]`, M at most N, but of size one along the axis; negative ones count from the end.
/// @param y Of the shape of `places`.
/// @throws std::invalid_argument if the shapes are others, or a place is none.
void gather(const float* x, const Shape& x_shape, std::size_t axis, const std::int64_t* places, const Shape& shape,
            float* y, const ForEach& for_each);

/// Writes numbers to one place along a dimension, as ONNX's `ScatterElements` does.
///
/// @param updates Of the shape of `places`.
/// @param y Of the shape of `x`; may be `x`. The rest is as for `gather`.
void scatter(const float* x, const Shape& x_shape, std::size_t axis, const std::int64_t* places, const Shape& shape,
             const float* updates, float* y, const ForEach& for_each);

/// The shape of tensors of these shapes put together along a dimension.
/// @throws std::invalid_argument if they differ in another one.
Shape concatenated(const std::vector<Shape>& shapes, std::size_t axis);

/// Puts tensors together along a dimension.
void concat(const std::vector<const float*>& parts, const std::vector<Shape>& shapes, std::size_t axis, float* y,
            const ForEach& for_each);

/// The shape of a tensor with numbers put around it.
/// @param pads Numbers before each dimension, then after each; a negative count cuts off.
/// @throws std::invalid_argument if there are not two for each dimension, or more is cut off than there is.
Shape padded(const Shape& shape, const Shape& pads);

/// Puts copies of a number around a tensor.
void pad(const float* x, const Shape& shape, const Shape& pads, float value, float* y, const ForEach& for_each);

/// Indices along one dimension: every `step`-th from `first`, `size` of them.
struct Span {
    std::int64_t first, size, step;
};

/// What ONNX's `Slice` takes of each dimension, but that axes count from the front and steps go forward.
/// @throws std::invalid_argument if the inputs are not of one length, an axis is none, or a step is not positive.
std::vector<Span> spans(const Shape& shape, const Shape& starts, const Shape& ends, const Shape& axes,
                        const Shape& steps);

/// Takes a part of a tensor.
void slice(const float* x, const Shape& shape, const std::vector<Span>& part, float* y, const ForEach& for_each);

}  // namespace crosseai::kernels
