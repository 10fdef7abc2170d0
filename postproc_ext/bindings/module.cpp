// Python arrays in, C++ views through, Python arrays out. The algorithm is in ../src and knows no Python.
//
// Arrays are checked, never cast: a silent float -> uint8 cast of a medical mask would be a defect. Pointers and shapes
// are read before the GIL is released, and the arguments keep the arrays alive until it is taken again.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "crosseai/postproc/checks.hpp"
#include "crosseai/postproc/fusion.hpp"
#include "crosseai/postproc/localize.hpp"
#include "crosseai/postproc/rectangles.hpp"
#include "crosseai/postproc/selection.hpp"

namespace py = pybind11;
namespace pp = crosseai::postproc;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

std::string describe(const py::object& object) {
    if (!py::isinstance<py::array>(object)) return py::str(py::type::of(object).attr("__name__"));
    const auto array = py::reinterpret_borrow<py::array>(object);
    std::string text = py::str(array.dtype());
    text += " array of shape " + std::string(py::str(object.attr("shape")));
    if (!(array.flags() & py::array::c_style)) text += ", not C-contiguous";
    return text;
}

/// The same array with its type known, or Error.
template <class T, class Error>
Array<T> checked(const py::object& object, const char* name, const char* expected, py::ssize_t ndim) {
    if (py::isinstance<Array<T>>(object)) {
        auto array = py::reinterpret_borrow<Array<T>>(object);
        const auto address = reinterpret_cast<std::uintptr_t>(array.data());
        if (array.ndim() == ndim && address % alignof(T) == 0) return array;
    }
    throw Error(std::string(name) + ": expected a C-contiguous, aligned " + expected + " array, found " +
                describe(object));
}

template <class T>
pp::ImageView<T> view(const Array<T>& array) {
    return {array.data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1))};
}

template <class T>
pp::Batch<T> batch(const Array<T>& array) {
    return {array.data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1)),
            static_cast<std::size_t>(array.shape(2))};
}

Array<float> checked_map(const py::object& object, const char* name) {
    auto map = checked<float, pp::InvalidMap>(object, name, "float32 [height, width]", 2);
    pp::require_map_size(view(map).height, view(map).width, name);
    pp::require_finite(view(map), name);
    return map;
}

Array<std::uint8_t> checked_mask(const py::object& object) {
    auto mask = checked<std::uint8_t, pp::InvalidMask>(object, "mask", "uint8 [height, width]", 2);
    pp::require_mask_size(view(mask).height, view(mask).width);
    pp::require_binary(view(mask));
    return mask;
}

std::vector<pp::Box> checked_rectangles(const py::object& object, pp::MaskView mask) {
    const auto array = checked<std::int32_t, pp::InvalidMask>(object, "rectangles", "int32 [k, 4]", 2);
    if (array.shape(1) != 4)
        throw pp::InvalidMask("rectangles: expected an int32 [k, 4] array, found " + describe(object));
    const std::int32_t* side = array.data();
    std::vector<pp::Box> boxes(static_cast<std::size_t>(array.shape(0)));
    for (pp::Box& box : boxes) {
        box = {side[0], side[1], side[2], side[3]};
        side += 4;
    }
    pp::require_inside(mask, boxes);
    return boxes;
}

Array<std::int32_t> to_array(const std::vector<pp::Box>& boxes) {
    Array<std::int32_t> array({static_cast<py::ssize_t>(boxes.size()), py::ssize_t{4}});
    std::int32_t* side = array.mutable_data();
    for (const pp::Box& box : boxes) {
        for (const std::int32_t value : {box.x0, box.y0, box.x1, box.y1}) *side++ = value;
    }
    return array;
}

bool is_uint8(const py::object& object) { return py::isinstance<py::array_t<std::uint8_t>>(object); }

template <class Pixel>
Array<float> fuse_maps(const Array<float>& heatmap, const Array<Pixel>& gradient_map, double t,
                       const pp::GradientShape& shape) {
    pp::require_share(t, "t");
    pp::require_gradient_shape(shape);
    const auto heat = view(heatmap);
    const auto gradient = view(gradient_map);
    Array<float> fused({gradient_map.shape(0), gradient_map.shape(1)});
    float* pixels = fused.mutable_data();
    const py::gil_scoped_release released;
    pp::Fusion()(heat, gradient, t, shape, pixels);
    return fused;
}

Array<float> fuse(const py::object& heatmap, const py::object& gradient_map, double t, double gradient_power,
                  double gradient_sigma) {
    const pp::GradientShape shape{gradient_power, gradient_sigma};
    const auto heat = checked_map(heatmap, "heatmap");
    if (!is_uint8(gradient_map)) return fuse_maps(heat, checked_map(gradient_map, "gradient_map"), t, shape);
    const auto gradient =
        checked<std::uint8_t, pp::InvalidMap>(gradient_map, "gradient_map", "uint8 [height, width]", 2);
    pp::require_map_size(view(gradient).height, view(gradient).width, "gradient_map");
    return fuse_maps(heat, gradient, t, shape);
}

Array<std::uint8_t> binarize(const py::object& fused, double threshold) {
    const auto map = checked_map(fused, "fused");
    pp::require_share(threshold, "threshold");
    const auto pixels = view(map);
    Array<std::uint8_t> mask({map.shape(0), map.shape(1)});
    std::uint8_t* ones = mask.mutable_data();
    const py::gil_scoped_release released;
    pp::binarize(pixels, threshold, ones);
    return mask;
}

Array<std::int32_t> maximal_rectangles(const py::object& mask, std::int64_t max_candidates, std::int64_t min_area) {
    const auto array = checked_mask(mask);
    pp::require_at_least(max_candidates, 1, "max_candidates");
    pp::require_at_least(min_area, 1, "min_area");
    const auto ones = view(array);
    std::vector<pp::Box> boxes;
    {
        const py::gil_scoped_release released;
        pp::RectangleSearch search;
        pp::maximal_rectangles(ones, static_cast<std::size_t>(max_candidates), min_area, search, boxes);
    }
    return to_array(boxes);
}

Array<std::int32_t> expand(const py::object& mask, const py::object& rectangles) {
    const auto array = checked_mask(mask);
    const auto ones = view(array);
    auto boxes = checked_rectangles(rectangles, ones);
    {
        const py::gil_scoped_release released;
        pp::Expansion grow;
        grow.start(ones);
        for (pp::Box& box : boxes) box = grow(box);
    }
    return to_array(boxes);
}

py::tuple select_brightest(const py::object& fused, const py::object& mask, const py::object& rectangles,
                           double area_power) {
    const auto map = checked_map(fused, "fused");
    const auto array = checked_mask(mask);
    const auto pixels = view(map);
    const auto ones = view(array);
    if (ones.height != pixels.height || ones.width != pixels.width)
        throw pp::InvalidMask("mask: expected the fused map's shape " + std::string(py::str(fused.attr("shape"))) +
                              ", found " + std::string(py::str(mask.attr("shape"))));
    const auto boxes = checked_rectangles(rectangles, ones);
    pp::require_share(area_power, "area_power");
    pp::Selection best;
    {
        const py::gil_scoped_release released;
        best = pp::select(pixels, ones, boxes, area_power);
    }
    return py::make_tuple(best.index, best.score);
}

template <class Pixel>
py::tuple localize_maps(const Array<float>& heatmaps, const Array<Pixel>& gradient_maps,
                        const pp::Parameters& parameters, std::int64_t threads) {
    const auto heat = batch(heatmaps);
    const auto gradients = batch(gradient_maps);
    std::vector<pp::Box> boxes(heat.count);
    Array<float> scores(heatmaps.shape(0));
    float* score = scores.mutable_data();
    {
        const py::gil_scoped_release released;
        pp::localize(heat, gradients, parameters, threads, boxes.data(), score);
    }
    return py::make_tuple(to_array(boxes), scores);
}

py::tuple localize(const py::object& heatmaps, const py::object& gradient_maps, double t, double threshold,
                   std::int64_t max_candidates, std::int64_t min_area, double gradient_power, double gradient_sigma,
                   double area_power, std::int64_t threads) {
    const pp::Parameters parameters{t,         threshold, max_candidates, min_area, {gradient_power, gradient_sigma},
                                    area_power};
    const auto heat = checked<float, pp::InvalidMap>(heatmaps, "heatmaps", "float32 [maps, h, w]", 3);
    if (is_uint8(gradient_maps))
        return localize_maps(heat,
                             checked<std::uint8_t, pp::InvalidMap>(gradient_maps, "gradient_maps",
                                                                   "uint8 or float32 [maps, height, width]", 3),
                             parameters, threads);
    return localize_maps(
        heat,
        checked<float, pp::InvalidMap>(gradient_maps, "gradient_maps", "uint8 or float32 [maps, height, width]", 3),
        parameters, threads);
}

/// Python owns the exceptions. Looked up when raised, so no interpreter's object is kept in static memory.
void raise(const char* exception, const std::exception& error) {
    py::set_error(py::module_::import("crosseai.contract").attr(exception), error.what());
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used(), py::multiple_interpreters::per_interpreter_gil()) {
    m.doc() = "The box algorithm in C++; see crosseai.postproc.";

    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const pp::InvalidMap& error) {
            raise("InvalidMapError", error);
        } catch (const pp::InvalidMask& error) {
            raise("InvalidMaskError", error);
        }
    });

    using namespace py::literals;
    const pp::Parameters paper;
    const py::options options;

    m.def("localize", localize, "heatmaps"_a, "gradient_maps"_a, py::kw_only(), "t"_a = paper.t,
          "threshold"_a = paper.threshold, "max_candidates"_a = paper.max_candidates, "min_area"_a = paper.min_area,
          "gradient_power"_a = paper.gradient.power, "gradient_sigma"_a = paper.gradient.sigma,
          "area_power"_a = paper.area_power, "threads"_a = 0,
          R"(Box of each disease from its heat map and its gradient map.

The whole algorithm of arXiv 2310.19835 (Algorithm 1): fuse, binarize, maximal_rectangles, expand, select.

Parameters
----------
heatmaps
    float32 ``[maps, h, w]``, for example Grad-CAM++ of a coarse layer.
gradient_maps
    uint8 or float32 ``[maps, height, width]``, for example absolute Guided Backpropagation gradients.
t
    Share of the heat map in the fused map, 0..1 (section 4.2).
threshold
    Share of the fused map's maximum above which a pixel belongs to the mask, 0..1 (section 4.2).
max_candidates
    Greatest number of rectangles considered; the paper gives none.
min_area
    Smallest area of a candidate in pixels; the paper gives none.
gradient_power
    Power to which the gradient map, scaled to 0..1, is raised before it is fused; positive. Not in the paper: 0.5
    tames the outliers of a gradient.
gradient_sigma
    Standard deviation of a Gaussian that smooths the gradient map, as a share of its shorter side, 0..1. Not in the
    paper. It is three box filters in each direction (Kovesi, DICTA 2010); the border is repeated.
area_power
    The candidate of the highest mean times ``area ** area_power`` is chosen, 0..1. Not in the paper: its rule, 0,
    favours small bright boxes; 1 chooses by the sum over the box.
threads
    Number of threads; 0 means every core.

Returns
-------
boxes : numpy.ndarray
    int32 ``[maps, 4]``: half-open ``(x0, y0, x1, y1)`` in pixels of the gradient map; all zero means no box.
scores : numpy.ndarray
    float32 ``[maps]``: mean of the masked fused map over the box, 0..255.

Raises
------
crosseai.contract.InvalidMapError
    If a map has the wrong dtype, shape or memory layout, is empty or not finite, or a parameter is out of range.

Examples
--------
>>> import numpy as np
>>> heatmaps = np.zeros((1, 7, 7), np.float32)
>>> heatmaps[0, 2:4, 3:5] = 1
>>> gradient_maps = np.zeros((1, 224, 224), np.uint8)
>>> gradient_maps[0, 70:120, 100:150] = 255
>>> boxes, scores = localize(heatmaps, gradient_maps)
>>> boxes
array([[100,  70, 150, 120]], dtype=int32)
)");

    m.def("fuse", fuse, "heatmap"_a, "gradient_map"_a, py::kw_only(), "t"_a = paper.t,
          "gradient_power"_a = paper.gradient.power, "gradient_sigma"_a = paper.gradient.sigma,
          R"(Weighted average of a heat map and a gradient map (arXiv 2310.19835, equation 4).

The heat map is enlarged bilinearly to the gradient map's size (half-pixel centres, clamped edges). Both are then scaled
min..max to [0, 255]; a constant map becomes zeros.

Parameters
----------
heatmap
    float32 ``[h, w]``.
gradient_map
    uint8 or float32 ``[height, width]``.
t
    Share of the heat map, 0..1.
gradient_power
    Power to which the gradient map, scaled to 0..1, is raised before it is fused; positive. Not in the paper: 0.5
    tames the outliers of a gradient.
gradient_sigma
    Standard deviation of a Gaussian that smooths the gradient map, as a share of its shorter side, 0..1. Not in the
    paper. It is three box filters in each direction (Kovesi, DICTA 2010); the border is repeated.

Returns
-------
numpy.ndarray
    float32 ``[height, width]``: ``t * H + (1 - t) * G``, 0..255.

Raises
------
crosseai.contract.InvalidMapError
    If a map has the wrong dtype, shape or memory layout, is empty or not finite, or a parameter is out of range.
)");

    m.def("binarize", binarize, "fused"_a, py::kw_only(), "threshold"_a = paper.threshold,
          R"(Mask of the pixels above a share of the map's maximum.

Parameters
----------
fused
    float32 ``[height, width]``.
threshold
    Share of the maximum, 0..1.

Returns
-------
numpy.ndarray
    uint8 ``[height, width]`` in {0, 1}; all zeros if the maximum is not positive.

Raises
------
crosseai.contract.InvalidMapError
    If the map has the wrong dtype, shape or memory layout, is empty or not finite, or ``threshold`` is out of range.
)");

    m.def("maximal_rectangles", maximal_rectangles, "mask"_a, py::kw_only(), "max_candidates"_a = paper.max_candidates,
          "min_area"_a = paper.min_area,
          R"(Largest disjoint rectangles of ones, the largest first.

Each rectangle is cleared before the next one is sought. Of equally large ones the smallest y0 comes first, then x0,
then y1.

Parameters
----------
mask
    uint8 ``[height, width]`` in {0, 1}.
max_candidates
    Greatest number of rectangles.
min_area
    Smallest area in pixels.

Returns
-------
numpy.ndarray
    int32 ``[k, 4]``: half-open ``(x0, y0, x1, y1)``.

Raises
------
crosseai.contract.InvalidMaskError
    If the mask has the wrong dtype, shape, memory layout or values.
crosseai.contract.InvalidMapError
    If a parameter is less than 1.
)");

    m.def("expand", expand, "mask"_a, "rectangles"_a,
          R"(Grow rectangles while at least half of each newly added ring is ones.

A ring is one pixel wide on every side at once; sides at the border stay.

Parameters
----------
mask
    uint8 ``[height, width]`` in {0, 1}.
rectangles
    int32 ``[k, 4]``: half-open ``(x0, y0, x1, y1)``.

Returns
-------
numpy.ndarray
    int32 ``[k, 4]``, in the same order.

Raises
------
crosseai.contract.InvalidMaskError
    If the mask or the rectangles have the wrong dtype, shape, memory layout or values.
)");

    m.def("select", select_brightest, "fused"_a, "mask"_a, "rectangles"_a, py::kw_only(),
          "area_power"_a = paper.area_power,
          R"(Rectangle of the highest mean of the masked fused map.

Parameters
----------
fused
    float32 ``[height, width]``.
mask
    uint8 ``[height, width]`` in {0, 1}; pixels outside it count as zero.
rectangles
    int32 ``[k, 4]``: half-open ``(x0, y0, x1, y1)``.
area_power
    The candidate of the highest mean times ``area ** area_power`` is chosen, 0..1. Not in the paper: its rule, 0,
    favours small bright boxes; 1 chooses by the sum over the box.

Returns
-------
index : int
    Row of ``rectangles``, the first one on a tie; -1 if there are none.
score : float
    Its mean intensity; 0 if there are none.

Raises
------
crosseai.contract.InvalidMapError
    If the fused map has the wrong dtype, shape or memory layout, is empty or not finite, or ``area_power`` is out of
    range.
crosseai.contract.InvalidMaskError
    If the mask or the rectangles have the wrong dtype, shape, memory layout or values.
)");
}
