// Views, boxes and errors of the box algorithm. Nothing here knows Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace crosseai::postproc {

/// A heat map, gradient map, fused map or parameter is not what it must be.
struct InvalidMap : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

/// A mask or a rectangle is not what it must be.
struct InvalidMask : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

/// Greatest height and width of a map: positions fit 16 bits and areas 32 bits.
inline constexpr std::size_t max_side = 65535;

/// Row-major pixels that somebody else owns.
template <class Pixel>
struct ImageView {
    const Pixel* data;
    std::size_t height;
    std::size_t width;

    const Pixel* row(std::size_t y) const { return data + y * width; }
    std::size_t size() const { return height * width; }
};

using MapView = ImageView<float>;
using MaskView = ImageView<std::uint8_t>;  // pixels in {0, 1}

/// Half-open rectangle in pixels, origin at the top-left corner; all zero means no box.
struct Box {
    std::int32_t x0 = 0;
    std::int32_t y0 = 0;
    std::int32_t x1 = 0;
    std::int32_t y1 = 0;

    std::int64_t area() const { return std::int64_t{x1 - x0} * (y1 - y0); }
    bool empty() const { return x1 <= x0 || y1 <= y0; }
    bool overlaps(const Box& other) const { return x0 < other.x1 && other.x0 < x1 && y0 < other.y1 && other.y0 < y1; }
    friend bool operator==(const Box& a, const Box& b) {
        return a.x0 == b.x0 && a.y0 == b.y0 && a.x1 == b.x1 && a.y1 == b.y1;
    }
    friend bool operator!=(const Box& a, const Box& b) { return !(a == b); }
};

}  // namespace crosseai::postproc
