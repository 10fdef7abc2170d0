// NumPy arrays in, views out; boxes in, arrays out.
//
// Arrays are checked, never cast: a silent float -> uint8 cast of a medical mask would be a defect.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "crosseai/postproc/checks.hpp"
#include "crosseai/postproc/localize.hpp"

namespace crosseai::postproc::bindings {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline std::string describe(const py::object& object) {
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
ImageView<T> view(const Array<T>& array) {
    return {array.data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1))};
}

template <class T>
Batch<T> batch(const Array<T>& array) {
    return {array.data(), static_cast<std::size_t>(array.shape(0)), static_cast<std::size_t>(array.shape(1)),
            static_cast<std::size_t>(array.shape(2))};
}

inline Array<float> checked_map(const py::object& object, const char* name) {
    auto map = checked<float, InvalidMap>(object, name, "float32 [height, width]", 2);
    require_map_size(view(map).height, view(map).width, name);
    require_finite(view(map), name);
    return map;
}

inline Array<std::uint8_t> checked_mask(const py::object& object) {
    auto mask = checked<std::uint8_t, InvalidMask>(object, "mask", "uint8 [height, width]", 2);
    require_mask_size(view(mask).height, view(mask).width);
    require_binary(view(mask));
    return mask;
}

inline std::vector<Box> checked_rectangles(const py::object& object, MaskView mask) {
    const auto array = checked<std::int32_t, InvalidMask>(object, "rectangles", "int32 [k, 4]", 2);
    if (array.shape(1) != 4) throw InvalidMask("rectangles: expected an int32 [k, 4] array, found " + describe(object));
    const std::int32_t* side = array.data();
    std::vector<Box> boxes(static_cast<std::size_t>(array.shape(0)));
    for (Box& box : boxes) {
        box = {side[0], side[1], side[2], side[3]};
        side += 4;
    }
    require_inside(mask, boxes);
    return boxes;
}

inline Array<std::int32_t> to_array(const std::vector<Box>& boxes) {
    Array<std::int32_t> array({static_cast<py::ssize_t>(boxes.size()), py::ssize_t{4}});
    std::int32_t* side = array.mutable_data();
    for (const Box& box : boxes) {
        for (const std::int32_t value : {box.x0, box.y0, box.x1, box.y1}) *side++ = value;
    }
    return array;
}

/// (boxes, scores)
inline py::tuple to_arrays(const std::vector<ScoredBox>& scored) {
    std::vector<Box> boxes;
    boxes.reserve(scored.size());
    Array<float> scores(static_cast<py::ssize_t>(scored.size()));
    float* score = scores.mutable_data();
    for (const ScoredBox& one : scored) {
        boxes.push_back(one.box);
        *score++ = one.score;
    }
    return py::make_tuple(to_array(boxes), scores);
}

}  // namespace crosseai::postproc::bindings
