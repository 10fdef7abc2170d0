// The kernels as operators of ONNX Runtime, in the domain `crosseai`: a library for `register_custom_ops_library`.
//
// Greater: x float, threshold float, a single number -> y bool.
// Mask: x float, keep bool -> y float; in place if it may.
// ArgMax: x float -> y int64 without the dimension `axis`.
// Concat: parts float -> y float, put together along `axis`.
// Pad: x float, pads int64, value float, zero if there is none -> y float, as ONNX's operator of that name makes it.
// Slice: x float, starts, ends, axes, steps int64 -> y float, likewise; axes count from the front, steps are positive.
// GatherElements: x float, a map in blocks, places int64 -> y float, the numbers there along `axis`.
// ScatterElements: x float, a map in blocks, places int64, updates float -> y float, x with these there; in place if
// it may.
//
// `axis` is an attribute, 0 or more.

#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "onnxruntime.hpp"
#include "shapes.hpp"

namespace {

using crosseai::kernels::ForEach;
using crosseai::kernels::Shape;
using crosseai::kernels::Task;
using namespace crosseai::onnxruntime;

/// Calls a function of ONNX Runtime.
/// @throws std::runtime_error with its message if it fails.
template <Place place, class... Arguments>
void checked(const Api* api, Arguments... arguments) {
    auto* const status = call<Status*, place>(api, arguments...);
    if (status == nullptr) return;
    const std::string message = call<const char*, Place::kGetErrorMessage>(api, static_cast<const Status*>(status));
    call<void, Place::kReleaseStatus>(api, status);
    throw std::runtime_error(message);
}

/// One node, while it runs.
class Node {
 public:
    Node(const Api* api, Context* context) : api_(api), context_(context) {}

    std::size_t inputs() const {
        std::size_t count = 0;
        checked<Place::kKernelContextGetInputCount>(api_, context_, &count);
        return count;
    }

    /// Whether an optional input is there.
    bool has(std::size_t input) const { return input < inputs() && value(input) != nullptr; }

    Shape shape(std::size_t input) const {
        TensorInfo* made = nullptr;
        checked<Place::kGetTensorTypeAndShape>(api_, value(input), &made);
        const auto release = [this](TensorInfo* info) {
            call<void, Place::kReleaseTensorTypeAndShapeInfo>(api_, info);
        };
        const std::unique_ptr<TensorInfo, decltype(release)> info(made, release);
        std::size_t rank = 0;
        checked<Place::kGetDimensionsCount>(api_, static_cast<const TensorInfo*>(made), &rank);
        Shape sizes(rank);
        checked<Place::kGetDimensions>(api_, static_cast<const TensorInfo*>(made), sizes.data(), rank);
        return sizes;
    }

    template <class Number>
    const Number* numbers(std::size_t input) const {
        return data<Number>(const_cast<Value*>(value(input)));
    }

    /// An input that is one number.
    float number(std::size_t input) const {
        if (const Shape sizes = shape(input); crosseai::kernels::numbers(sizes, 0, sizes.size()) != 1)
            throw std::invalid_argument("expected one number, found " + crosseai::kernels::text(sizes));
        return *numbers<float>(input);
    }

    /// An input of one dimension.
    Shape list(std::size_t input) const {
        const auto* const first = numbers<std::int64_t>(input);
        return {first, first + shape(input).at(0)};
    }

    /// The numbers of the result, to be written.
    template <class Number>
    Number* result(const Shape& shape) const {
        Value* made = nullptr;
        checked<Place::kKernelContextGetOutput>(api_, context_, std::size_t{0}, shape.data(), shape.size(), &made);
        return data<Number>(made);
    }

    /// On the threads of the session.
    ForEach for_each() const {
        return [this](std::size_t count, const Task& task) {
            if (count == 1) return task(0);
            void (*const run)(void*, std::size_t) = [](void* data, std::size_t i) {
                (*static_cast<const Task*>(data))(i);
            };
            checked<Place::kKernelContextParallelFor>(api_, context_, run, count, std::size_t{0},
                                                      static_cast<void*>(const_cast<Task*>(&task)));
        };
    }

 private:
    const Value* value(std::size_t input) const {
        const Value* found = nullptr;
        checked<Place::kKernelContextGetInput>(api_, context_, input, &found);
        return found;
    }

    template <class Number>
    Number* data(Value* value) const {
        void* first = nullptr;
        checked<Place::kGetTensorMutableData>(api_, value, &first);
        return static_cast<Number*>(first);
    }

    const Api* api_;
    Context* context_;
};

/// What most operators have in common.
struct Operator {
    static constexpr bool any_number_of_inputs = false;
    static constexpr std::size_t optional_input = std::numeric_limits<std::size_t>::max();  // none
    static constexpr std::size_t may_change_inputs = 0;                                     // the first of them

    Operator(const Api* /*api*/, const KernelInfo* /*info*/) {}
};

struct AlongAxis : Operator {
    AlongAxis(const Api* api, const KernelInfo* info) : Operator(api, info) {
        std::int64_t given = 0;
        checked<Place::kKernelInfoGetAttributeInt64>(api, info, "axis", &given);
        if (given < 0) throw std::invalid_argument("expected an axis of 0 or more, found " + std::to_string(given));
        axis = static_cast<std::size_t>(given);
    }

    std::size_t axis = 0;
};

struct Greater : Operator {
    using Operator::Operator;

    static constexpr const char* name = "Greater";
    static constexpr Type inputs[] = {Type::kFloat, Type::kFloat};
    static constexpr Type output = Type::kBool;

    void compute(const Node& node) const {
        const Shape x = node.shape(0);
        auto* const y = node.result<std::uint8_t>(x);
        crosseai::kernels::greater(node.numbers<float>(0), x, node.number(1), y, node.for_each());
    }
};

struct Mask : Operator {
    using Operator::Operator;

    static constexpr const char* name = "Mask";
    static constexpr Type inputs[] = {Type::kFloat, Type::kBool};
    static constexpr Type output = Type::kFloat;
    static constexpr std::size_t may_change_inputs = 1;

    void compute(const Node& node) const {
        const Shape x = node.shape(0);
        const Shape keep = node.shape(1);
        auto* const y = node.result<float>(crosseai::kernels::broadcast(x, keep));
        crosseai::kernels::mask(node.numbers<float>(0), x, node.numbers<std::uint8_t>(1), keep, y, node.for_each());
    }
};

struct ArgMax : AlongAxis {
    using AlongAxis::AlongAxis;

    static constexpr const char* name = "ArgMax";
    static constexpr Type inputs[] = {Type::kFloat};
    static constexpr Type output = Type::kInt64;

    void compute(const Node& node) const {
        const Shape x = node.shape(0);
        if (axis >= x.size())
            throw std::invalid_argument("ArgMax: expected a dimension of the input, found " + std::to_string(axis));
        Shape reduced = x;
        reduced.erase(reduced.begin() + static_cast<std::ptrdiff_t>(axis));
        auto* const y = node.result<std::int64_t>(reduced);
        crosseai::kernels::arg_max(node.numbers<float>(0), x, axis, y, node.for_each());
    }
};

struct Concat : AlongAxis {
    using AlongAxis::AlongAxis;

    static constexpr const char* name = "Concat";
    static constexpr Type inputs[] = {Type::kFloat};
    static constexpr bool any_number_of_inputs = true;
    static constexpr Type output = Type::kFloat;

    void compute(const Node& node) const {
        std::vector<const float*> parts;
        std::vector<Shape> shapes;
        for (std::size_t i = 0; i < node.inputs(); ++i) {
            parts.push_back(node.numbers<float>(i));
            shapes.push_back(node.shape(i));
        }
        auto* const y = node.result<float>(crosseai::kernels::concatenated(shapes, axis));
        crosseai::kernels::concat(parts, shapes, axis, y, node.for_each());
    }
};

struct Pad : Operator {
    using Operator::Operator;

    static constexpr const char* name = "Pad";
    static constexpr Type inputs[] = {Type::kFloat, Type::kInt64, Type::kFloat};
    static constexpr std::size_t optional_input = 2;
    static constexpr Type output = Type::kFloat;

    void compute(const Node& node) const {
        const Shape x = node.shape(0);
        const Shape pads = node.list(1);
        const float value = node.has(2) ? node.number(2) : 0.0F;
        auto* const y = node.result<float>(crosseai::kernels::padded(x, pads));
        crosseai::kernels::pad(node.numbers<float>(0), x, pads, value, y, node.for_each());
    }
};

struct Slice : Operator {
    using Operator::Operator;

    static constexpr const char* name = "Slice";
    static constexpr Type inputs[] = {Type::kFloat, Type::kInt64, Type::kInt64, Type::kInt64, Type::kInt64};
    static constexpr Type output = Type::kFloat;

    void compute(const Node& node) const {
        const Shape x = node.shape(0);
        const auto part = crosseai::kernels::spans(x, node.list(1), node.list(2), node.list(3), node.list(4));
        Shape sizes;
        for (const auto& span : part) sizes.push_back(span.size);
        auto* const y = node.result<float>(sizes);
        crosseai::kernels::slice(node.numbers<float>(0), x, part, y, node.for_each());
    }
};

struct Gather : AlongAxis {
    using AlongAxis::AlongAxis;

    static constexpr const char* name = "GatherElements";
    static constexpr Type inputs[] = {Type::kFloat, Type::kInt64};
    static constexpr Type output = Type::kFloat;

    void compute(const Node& node) const {
        const Shape shape = node.shape(1);
        auto* const y = node.result<float>(shape);
        crosseai::kernels::gather(node.numbers<float>(0), node.shape(0), axis, node.numbers<std::int64_t>(1), shape, y,
                                  node.for_each());
    }
};

struct Scatter : AlongAxis {
    using AlongAxis::AlongAxis;

    static constexpr const char* name = "ScatterElements";
    static constexpr Type inputs[] = {Type::kFloat, Type::kInt64, Type::kFloat};
    static constexpr Type output = Type::kFloat;
    static constexpr std::size_t may_change_inputs = 1;

    void compute(const Node& node) const {
        const Shape x = node.shape(0);
        const Shape shape = node.shape(1);
        if (node.shape(2) != shape) throw std::invalid_argument("ScatterElements: expected an update for each place");
        auto* const y = node.result<float>(x);
        crosseai::kernels::scatter(node.numbers<float>(0), x, axis, node.numbers<std::int64_t>(1), shape,
                                   node.numbers<float>(2), y, node.for_each());
    }
};

/// A kernel of some operator, and the interface to call.
template <class Kind>
struct Kernel {
    Kernel(const Api* table, const KernelInfo* info) : api(table), operation(table, info) {}

    const Api* api;
    Kind operation;
};

/// Exceptions must not reach ONNX Runtime: they become its errors.
template <class Function>
Status* guarded(const Api* api, const Function& function) {
    constexpr int kFail = 1;
    try {
        function();
    } catch (const std::exception& error) {
        return call<Status*, Place::kCreateStatus>(api, kFail, error.what());
    }
    return nullptr;
}

template <class Kind>
CustomOp operator_of() {
    CustomOp made{};
    made.version = kVersion;
    made.get_name = [](const CustomOp*) { return Kind::name; };
    made.get_execution_provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
    made.get_input_type = [](const CustomOp*, std::size_t i) { return Kind::inputs[i]; };
    made.get_input_count = [](const CustomOp*) { return std::size(Kind::inputs); };
    made.get_output_type = [](const CustomOp*, std::size_t) { return Kind::output; };
    made.get_output_count = [](const CustomOp*) { return std::size_t{1}; };
    made.get_input_characteristic = [](const CustomOp*, std::size_t i) {
        if (i == Kind::optional_input) return Presence::kOptional;
        return Kind::any_number_of_inputs ? Presence::kVariadic : Presence::kRequired;
    };
    made.get_output_characteristic = [](const CustomOp*, std::size_t) { return Presence::kRequired; };
    made.get_input_memory = [](const CustomOp*, std::size_t) { return 0; };
    made.get_variadic_input_least = made.get_variadic_output_least = [](const CustomOp*) { return 1; };
    made.get_variadic_input_alike = made.get_variadic_output_alike = [](const CustomOp*) { return 1; };
    made.create_kernel_v2 = [](const CustomOp*, const Api* api, const KernelInfo* info, void** kernel) {
        return guarded(api, [&] { *kernel = std::make_unique<Kernel<Kind>>(api, info).release(); });
    };
    made.compute_v2 = [](void* kernel, Context* context) {
        const auto& own = *static_cast<Kernel<Kind>*>(kernel);
        return guarded(own.api, [&] { own.operation.compute(Node(own.api, context)); });
    };
    made.destroy_kernel = [](void* kernel) { delete static_cast<Kernel<Kind>*>(kernel); };
    made.get_start_version = [](const CustomOp*) { return 1; };
    made.get_end_version = [](const CustomOp*) { return std::numeric_limits<int>::max(); };
    made.get_may_in_place = [](int** inputs, int** outputs) {
        static int first = 0;  // the first input becomes the output
        *inputs = *outputs = &first;
        return Kind::may_change_inputs;
    };
    made.release_may_in_place = [](int*, int*) {};
    return made;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) Status* RegisterCustomOps(SessionOptions* options,
                                                                            const ApiBase* base) {
    const Api* const api = base->get_api(kVersion);
    if (api == nullptr)
        return guarded(base->get_api(1), [] { throw std::runtime_error("expected ONNX Runtime 1.18 or later"); });
    return guarded(api, [&] {
        static const CustomOp operators[] = {operator_of<Greater>(), operator_of<Mask>(),   operator_of<ArgMax>(),
                                             operator_of<Concat>(),  operator_of<Pad>(),    operator_of<Slice>(),
                                             operator_of<Gather>(),  operator_of<Scatter>()};
        static Domain* const domain = [api] {  // of all sessions, which may use it to their end: never released
            Domain* made = nullptr;
            checked<Place::kCreateCustomOpDomain>(api, "crosseai", &made);
            for (const auto& each : operators) checked<Place::kCustomOpDomainAdd>(api, made, &each);
            return made;
        }();
        checked<Place::kAddCustomOpDomain>(api, options, domain);
    });
}
