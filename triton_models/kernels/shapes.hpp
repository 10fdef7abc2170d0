// What the kernels have in common.
#pragma once

#include <string>

#include "kernels.hpp"

namespace crosseai::kernels {

constexpr std::size_t kPiece = 16384;  // numbers that a thread takes at a time: they fit into its second cache

inline std::size_t pieces(std::size_t count, std::size_t each) { return (count + each - 1) / each; }

/// Numbers in the dimensions from `first` to `last`, the latter excluded.
inline std::size_t numbers(const Shape& shape, std::size_t first, std::size_t last) {
    std::size_t product = 1;
    for (std::size_t d = first; d < last; ++d) product *= static_cast<std::size_t>(shape[d]);
    return product;
}

inline std::string text(const Shape& shape) {
    std::string listed;
    for (const auto size : shape) listed += (listed.empty() ? "" : ", ") + std::to_string(size);
    return "[" + listed + "]";
}

}  // namespace crosseai::kernels
