#include "crosseai/postproc/closing.hpp"

#include <algorithm>
#include <cmath>

#include "multiversion.hpp"

namespace crosseai::postproc {
namespace {

CROSSEAI_MULTIVERSION void either(const std::uint8_t* __restrict a, const std::uint8_t* __restrict b, std::size_t size,
                                  std::uint8_t* __restrict target) {
    for (std::size_t i = 0; i < size; ++i) target[i] = a[i] | b[i];
}

CROSSEAI_MULTIVERSION void complement(std::uint8_t* mask, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) mask[i] ^= 1;
}

}  // namespace

/// Each pixel becomes one if any of the `count` pixels is that follow it, itself included, at distances of `step`.
///
/// The reach doubles with each pass over the whole plane. Along a row, a window may go on in the next one: in a margin.
void Closing::spread(std::size_t step, std::size_t count) {
    for (std::size_t reach = 1; reach < count;) {
        const std::size_t added = std::min(reach, count - reach);
        const std::size_t inside = plane_.size() - std::min(added * step, plane_.size());
        either(plane_.data(), plane_.data() + added * step, inside, spare_.data());
        std::copy(plane_.begin() + static_cast<std::ptrdiff_t>(inside), plane_.end(),
                  spare_.begin() + static_cast<std::ptrdiff_t>(inside));
        plane_.swap(spare_);
        reach += added;
    }
}

void Closing::operator()(std::uint8_t* mask, std::size_t height, std::size_t width, double share) {
    const auto radius = static_cast<std::size_t>(std::lround(share * static_cast<double>(std::min(height, width))));
    if (radius == 0) return;
    const std::size_t margin = 2 * radius;
    const std::size_t stride = width + margin;
    plane_.assign((height + margin) * stride, 0);
    spare_.resize(plane_.size());
    for (std::size_t y = 0; y < height; ++y)
        std::copy_n(mask + y * width, width,
                    plane_.begin() + static_cast<std::ptrdiff_t>((y + margin) * stride + margin));
    // The first two passes leave the dilated mask with `radius` pixels more on every side, the others erode it.
    for (int pass = 0; pass < 2; ++pass) {
        spread(1, margin + 1);
        spread(stride, margin + 1);
        complement(plane_.data(), plane_.size());
    }
    for (std::size_t y = 0; y < height; ++y)
        std::copy_n(plane_.begin() + static_cast<std::ptrdiff_t>(y * stride), width, mask + y * width);
}

}  // namespace crosseai::postproc
