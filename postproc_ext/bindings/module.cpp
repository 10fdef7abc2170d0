// Python arrays in, C++ views through, Python arrays out. The algorithm is in ../src and knows no Python.
//
// Pointers and shapes are read before the GIL is released, and the arguments keep the arrays alive until it is taken
// again.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "arrays.hpp"
#include "crosseai/postproc/candidates.hpp"
#include "crosseai/postproc/checks.hpp"
#include "crosseai/postproc/closing.hpp"
#include "crosseai/postproc/fusion.hpp"
#include "crosseai/postproc/localize.hpp"
#include "crosseai/postproc/selection.hpp"
#include "documentation.hpp"

namespace py = pybind11;
namespace pp = crosseai::postproc;
namespace documentation = pp::bindings::documentation;
using namespace pp::bindings;

namespace {

pp::Candidates candidates_named(const std::string& name) {
    if (name == "greedy") return pp::Candidates::greedy;
    if (name == "components") return pp::Candidates::components;
    if (name == "all") return pp::Candidates::all;
    throw pp::InvalidMap("candidates: expected 'greedy', 'components' or 'all', found '" + name + "'");
}

bool is_uint8(const py::object& object) { return py::isinstance<py::array_t<std::uint8_t>>(object); }

template <class Pixel>
Array<float> fuse_maps(const Array<float>& heatmap, const Array<Pixel>& gradient_map, double t,
                       const pp::GradientShape& shape) {
    pp::require_share(t, "t");
    pp::require_gradient_shape(shape, std::is_same_v<Pixel, float>);
    const auto heat = view(heatmap);
    const auto gradient = view(gradient_map);
    Array<float> fused({gradient_map.shape(0), gradient_map.shape(1)});
    float* pixels = fused.mutable_data();
    const py::gil_scoped_release released;
    pp::Fusion()(heat, gradient, t, shape, pixels);
    return fused;
}

Array<float> fuse(const py::object& heatmap, const py::object& gradient_map, double t, bool gradient_positive,
                  double gradient_percentile, double gradient_power, double gradient_sigma) {
    const pp::GradientShape shape{gradient_positive, gradient_percentile, gradient_power, gradient_sigma};
    const auto heat = checked_map(heatmap, "heatmap");
    if (!is_uint8(gradient_map)) return fuse_maps(heat, checked_map(gradient_map, "gradient_map"), t, shape);
    const auto gradient =
        checked<std::uint8_t, pp::InvalidMap>(gradient_map, "gradient_map", "uint8 [height, width]", 2);
    pp::require_map_size(view(gradient).height, view(gradient).width, "gradient_map");
    return fuse_maps(heat, gradient, t, shape);
}

Array<std::uint8_t> binarize(const py::object& fused, double threshold, double closing) {
    const auto map = checked_map(fused, "fused");
    pp::require_share(threshold, "threshold");
    pp::require_share(closing, "closing");
    const auto pixels = view(map);
    Array<std::uint8_t> mask({map.shape(0), map.shape(1)});
    std::uint8_t* ones = mask.mutable_data();
    const py::gil_scoped_release released;
    pp::binarize(pixels, threshold, ones);
    pp::Closing()(ones, pixels.height, pixels.width, closing);
    return mask;
}

Array<std::int32_t> maximal_rectangles(const py::object& mask, const std::string& candidates,
                                       std::int64_t max_candidates, std::int64_t min_area, double min_area_share) {
    const auto array = checked_mask(mask);
    const pp::CandidateRule rule{candidates_named(candidates), max_candidates, min_area, min_area_share};
    pp::require_candidate_rule(rule);
    const auto ones = view(array);
    std::vector<pp::Box> boxes;
    {
        const py::gil_scoped_release released;
        pp::CandidateSearch()(ones, rule, boxes);
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
    std::vector<pp::Selection> best;
    {
        const py::gil_scoped_release released;
        best = pp::Selector()(pixels, ones, boxes, {area_power, 1.0, 1});
    }
    if (best.empty()) return py::make_tuple(-1, 0.0);
    return py::make_tuple(best.front().index, best.front().score);
}

template <class Pixel>
py::tuple localize(const Array<float>& heatmaps, const Array<Pixel>& gradient_maps, const pp::Parameters& parameters,
                   std::int64_t threads) {
    const auto heat = batch(heatmaps);
    const auto gradients = batch(gradient_maps);
    std::vector<pp::ScoredBox> boxes(heat.count);
    {
        const py::gil_scoped_release released;
        pp::localize(heat, gradients, parameters, threads, boxes.data());
    }
    return to_arrays(boxes);
}

template <class Pixel>
py::tuple localize_many(const Array<float>& heatmaps, const Array<Pixel>& gradient_maps,
                        const pp::Parameters& parameters, std::int64_t threads) {
    const auto heat = batch(heatmaps);
    const auto gradients = batch(gradient_maps);
    std::vector<pp::ScoredBox> boxes;
    Array<std::int64_t> offsets(heatmaps.shape(0) + 1);
    std::int64_t* offset = offsets.mutable_data();
    {
        const py::gil_scoped_release released;
        *offset = 0;
        for (const auto& found : pp::localize_many(heat, gradients, parameters, threads)) {
            boxes.insert(boxes.end(), found.begin(), found.end());
            *++offset = static_cast<std::int64_t>(boxes.size());
        }
    }
    const py::tuple arrays = to_arrays(boxes);
    return py::make_tuple(arrays[0], arrays[1], offsets);
}

/// A Python function of two batches of maps and of the algorithm's keywords; `More` are the types of those that
/// complete the selection rule. It calls `localize_checked` with typed arrays, the parameters and the number of
/// threads.
template <class... More, class Function>
auto of_maps(Function localize_checked) {
    return [=](const py::object& heatmaps, const py::object& gradient_maps, double t, double threshold,
               bool gradient_positive, double gradient_percentile, double gradient_power, double gradient_sigma,
               double closing, const std::string& candidates, std::int64_t max_candidates, std::int64_t min_area,
               double min_area_share, double area_power, std::int64_t threads, More... more) -> py::tuple {
        const pp::Parameters parameters{t,
                                        threshold,
                                        {gradient_positive, gradient_percentile, gradient_power, gradient_sigma},
                                        closing,
                                        {candidates_named(candidates), max_candidates, min_area, min_area_share},
                                        {area_power, more...}};
        constexpr const char* expected = "uint8 or float32 [maps, height, width]";
        const auto heat = checked<float, pp::InvalidMap>(heatmaps, "heatmaps", "float32 [maps, h, w]", 3);
        if (is_uint8(gradient_maps))
            return localize_checked(heat,
                                    checked<std::uint8_t, pp::InvalidMap>(gradient_maps, "gradient_maps", expected, 3),
                                    parameters, threads);
        return localize_checked(heat, checked<float, pp::InvalidMap>(gradient_maps, "gradient_maps", expected, 3),
                                parameters, threads);
    };
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
    const auto t = "t"_a = paper.t;
    const auto threshold = "threshold"_a = paper.threshold;
    const auto closing = "closing"_a = paper.closing;
    const auto area_power = "area_power"_a = paper.selection.area_power;
    const std::tuple gradient{"gradient_positive"_a = paper.gradient.positive,
                              "gradient_percentile"_a = paper.gradient.percentile,
                              "gradient_power"_a = paper.gradient.power, "gradient_sigma"_a = paper.gradient.sigma};
    const std::tuple candidates{"candidates"_a = "greedy", "max_candidates"_a = paper.candidates.max_candidates,
                                "min_area"_a = paper.candidates.min_area,
                                "min_area_share"_a = paper.candidates.min_area_share};
    const auto define = [&m](const char* name, const auto& function, const char* documentation, const auto& arguments) {
        std::apply([&](const auto&... argument) { m.def(name, function, documentation, argument...); }, arguments);
    };
    const auto maps = std::tuple_cat(std::tuple{"heatmaps"_a, "gradient_maps"_a, py::kw_only(), t, threshold}, gradient,
                                     std::tuple{closing}, candidates, std::tuple{area_power, "threads"_a = 0});

    define("localize", of_maps([](const auto&... arguments) { return localize(arguments...); }),
           documentation::localize, maps);
    define("localize_many",
           of_maps<double, std::int64_t>([](const auto&... arguments) { return localize_many(arguments...); }),
           documentation::localize_many, std::tuple_cat(maps, std::tuple{"score_ratio"_a = 0.5, "max_boxes"_a = 8}));
    define("fuse", fuse, documentation::fuse,
           std::tuple_cat(std::tuple{"heatmap"_a, "gradient_map"_a, py::kw_only(), t}, gradient));
    define("binarize", binarize, documentation::binarize, std::tuple{"fused"_a, py::kw_only(), threshold, closing});
    define("maximal_rectangles", maximal_rectangles, documentation::maximal_rectangles,
           std::tuple_cat(std::tuple{"mask"_a, py::kw_only()}, candidates));
    m.def("expand", expand, documentation::expand, "mask"_a, "rectangles"_a);
    m.def("select", select_brightest, documentation::select, "fused"_a, "mask"_a, "rectangles"_a, py::kw_only(),
          area_power);
}
