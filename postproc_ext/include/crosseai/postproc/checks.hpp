// What an argument must be. Every message says what was expected and what was found.
#pragma once

#include <cstdint>
#include <vector>

#include "crosseai/postproc/candidates.hpp"
#include "crosseai/postproc/gradient.hpp"
#include "crosseai/postproc/selection.hpp"
#include "crosseai/postproc/types.hpp"

namespace crosseai::postproc {

/// Throws InvalidMap or InvalidMask unless both sides have 1 to max_side pixels.
void require_map_size(std::size_t height, std::size_t width, const char* name);
void require_mask_size(std::size_t height, std::size_t width);

/// Throws InvalidMap if a pixel is NaN or infinite.
void require_finite(MapView map, const char* name);

/// Throws InvalidMask unless every pixel is 0 or 1.
void require_binary(MaskView mask);

/// Throws InvalidMask unless every box is inside the mask and not empty.
void require_inside(MaskView mask, const std::vector<Box>& boxes);

/// Throws InvalidMap unless a parameter lies in 0..1.
void require_share(double value, const char* name);

/// Throws InvalidMap if a parameter is out of range, or if `positive` is asked of pixels that have no sign.
void require_gradient_shape(const GradientShape& shape, bool pixels_have_sign);

/// Throws InvalidMap if a parameter is out of range.
void require_candidate_rule(const CandidateRule& rule);
void require_selection_rule(const SelectionRule& rule);

/// Throws InvalidMap if a parameter is less than `least`.
void require_at_least(std::int64_t value, std::int64_t least, const char* name);

}  // namespace crosseai::postproc
