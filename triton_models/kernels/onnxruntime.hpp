// The part of ONNX Runtime's C interface that a library of operators needs.
//
// Its Python package comes without headers. What is declared here is binary interface, which ONNX Runtime keeps: it
// only appends to `OrtApi` and `OrtCustomOp`, and is told the version that is expected. Documented at
// https://onnxruntime.ai/docs/api/c/struct_ort_api.html and struct_ort_custom_op.html.
#pragma once

#include <cstddef>
#include <cstdint>

namespace crosseai::onnxruntime {

constexpr std::uint32_t kVersion = 18;  // of ONNX Runtime 1.18, the first that lets operators work in place

/// Opaque, of ONNX Runtime.
struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct Context;
struct Value;
struct TensorInfo;

/// Places of functions in the table that is `OrtApi`.
enum class Place : std::uint16_t {
    kCreateStatus = 0,
    kGetErrorMessage = 2,
    kCreateCustomOpDomain = 26,
    kCustomOpDomainAdd = 27,
    kAddCustomOpDomain = 28,
    kGetTensorMutableData = 51,
    kGetDimensionsCount = 61,
    kGetDimensions = 62,
    kGetTensorTypeAndShape = 65,
    kKernelInfoGetAttributeInt64 = 86,
    kKernelContextGetInputCount = 88,
    kKernelContextGetInput = 90,
    kKernelContextGetOutput = 91,
    kReleaseStatus = 93,
    kReleaseTensorTypeAndShapeInfo = 99,
    kKernelContextParallelFor = 274,
};

using Api = void (*)();  // the first of the table's functions

struct ApiBase {
    const Api* (*get_api)(std::uint32_t version);
    const char* (*get_version_string)();
};

/// Of `ONNXTensorElementDataType`.
enum class Type : int { kFloat = 1, kInt64 = 7, kBool = 9 };  // NOLINT(performance-enum-size): as in C

/// Of `OrtCustomOpInputOutputCharacteristic`.
enum class Presence : int { kRequired = 0, kOptional = 1, kVariadic = 2 };  // NOLINT(performance-enum-size): as in C

/// `OrtCustomOp` of version 18.
struct CustomOp {
    std::uint32_t version;
    void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);
    const char* (*get_name)(const CustomOp*);
    const char* (*get_execution_provider)(const CustomOp*);
    Type (*get_input_type)(const CustomOp*, std::size_t);
    std::size_t (*get_input_count)(const CustomOp*);
    Type (*get_output_type)(const CustomOp*, std::size_t);
    std::size_t (*get_output_count)(const CustomOp*);
    void (*compute)(void*, Context*);
    void (*destroy_kernel)(void*);
    Presence (*get_input_characteristic)(const CustomOp*, std::size_t);
    Presence (*get_output_characteristic)(const CustomOp*, std::size_t);
    int (*get_input_memory)(const CustomOp*, std::size_t);
    int (*get_variadic_input_least)(const CustomOp*);
    int (*get_variadic_input_alike)(const CustomOp*);
    int (*get_variadic_output_least)(const CustomOp*);
    int (*get_variadic_output_alike)(const CustomOp*);
    Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void** kernel);
    Status* (*compute_v2)(void*, Context*);
    Status* (*infer_output_shapes)(const CustomOp*, void*);
    int (*get_start_version)(const CustomOp*);
    int (*get_end_version)(const CustomOp*);
    std::size_t (*get_may_in_place)(int** inputs, int** outputs);
    void (*release_may_in_place)(int* inputs, int* outputs);
    std::size_t (*get_alias_map)(int** inputs, int** outputs);
    void (*release_alias_map)(int* inputs, int* outputs);
};

/// Calls a function of the table.
template <class Result, Place place, class... Arguments>
Result call(const Api* api, Arguments... arguments) {
    return reinterpret_cast<Result (*)(Arguments...)>(api[static_cast<std::size_t>(place)])(arguments...);
}

}  // namespace crosseai::onnxruntime
