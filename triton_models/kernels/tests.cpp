// Tests of the kernels without ONNX Runtime: against loops over all indices. Run by ctest, best under sanitizers.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "kernels.hpp"
#include "postproc_ext/tests/check.hpp"

namespace {

using namespace crosseai::kernels;

using Indices = std::vector<std::size_t>;

/// Two threads, the pieces in reverse order.
void in_parallel(std::size_t count, const Task& task) {
    std::thread other([&] {
        for (std::size_t i = count; i-- > count / 2;) task(i);
    });
    for (std::size_t i = count / 2; i-- > 0;) task(i);
    other.join();
}

std::size_t count_of(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, [](std::size_t product, std::int64_t size) {
        return product * static_cast<std::size_t>(size);
    });
}

/// Indices of the i-th number.
Indices indices(std::size_t i, const Shape& shape) {
    Indices found(shape.size());
    for (std::size_t d = shape.size(); d-- > 0;) {
        found[d] = i % static_cast<std::size_t>(shape[d]);
        i /= static_cast<std::size_t>(shape[d]);
    }
    return found;
}

/// Where a number of an operand is that is broadcast to a result: its last dimensions are the result's.
std::size_t place(const Indices& result, const Shape& operand) {
    std::size_t at = 0;
    for (std::size_t d = 0; d < operand.size(); ++d) {
        const std::size_t index = operand[d] == 1 ? 0 : result[result.size() - operand.size() + d];
        at = at * static_cast<std::size_t>(operand[d]) + index;
    }
    return at;
}

std::vector<float> random_numbers(std::mt19937& random, const Shape& shape) {
    std::uniform_int_distribution<int> few(-4, 4);  // so that there are ties
    std::vector<float> numbers(count_of(shape));
    for (auto& number : numbers) number = static_cast<float>(few(random));
    return numbers;
}

void check_mask(std::mt19937& random, const Shape& x_shape, const Shape& keep_shape) {
    const Shape shape = broadcast(x_shape, keep_shape);
    const auto x = random_numbers(random, x_shape);
    std::vector<std::uint8_t> keep(count_of(keep_shape));
    std::bernoulli_distribution half;
    for (auto& each : keep) each = half(random) ? 1 : 0;
    std::vector<float> y(count_of(shape), -1.0F);
    mask(x.data(), x_shape, keep.data(), keep_shape, y.data(), in_parallel);
    for (std::size_t i = 0; i < y.size(); ++i) {
        const auto at = indices(i, shape);
        CHECK(y[i] == (keep[place(at, keep_shape)] != 0 ? x[place(at, x_shape)] : 0.0F));
    }
    if (x_shape != shape) return;
    auto in_place = x;
    mask(in_place.data(), x_shape, keep.data(), keep_shape, in_place.data(), in_parallel);
    CHECK(in_place == y);
}

void check_greater(std::mt19937& random, const Shape& shape, float threshold) {
    const auto x = random_numbers(random, shape);
    std::vector<std::uint8_t> y(x.size(), 9);
    greater(x.data(), shape, threshold, y.data(), in_parallel);
    for (std::size_t i = 0; i < y.size(); ++i) CHECK(y[i] == (x[i] > threshold ? 1 : 0));
}

void check_arg_max(const std::vector<float>& x, const Shape& shape, std::size_t axis) {
    Shape reduced = shape;
    reduced[axis] = 1;
    std::vector<std::int64_t> found(count_of(reduced), -1);
    arg_max(x.data(), shape, axis, found.data(), in_parallel);
    for (std::size_t i = 0; i < found.size(); ++i) {
        auto at = indices(i, reduced);
        std::size_t best = 0;
        float most = x[place(at, shape)];
        for (std::size_t k = 1; k < static_cast<std::size_t>(shape[axis]); ++k) {
            at[axis] = k;
            if (x[place(at, shape)] > most) {
                most = x[place(at, shape)];
                best = k;
            }
        }
        CHECK(found[i] == static_cast<std::int64_t>(best));
    }
}

void check_concat(std::mt19937& random, const std::vector<Shape>& shapes, std::size_t axis) {
    const Shape whole = concatenated(shapes, axis);
    std::vector<std::vector<float>> numbers(shapes.size());
    std::vector<const float*> parts(shapes.size());
    for (std::size_t i = 0; i < shapes.size(); ++i) {
        numbers[i] = random_numbers(random, shapes[i]);
        parts[i] = numbers[i].data();
    }
    std::vector<float> y(count_of(whole), -9.0F);
    concat(parts, shapes, axis, y.data(), in_parallel);
    for (std::size_t i = 0; i < y.size(); ++i) {
        auto at = indices(i, whole);
        std::size_t part = 0;
        while (at[axis] >= static_cast<std::size_t>(shapes[part][axis]))
            at[axis] -= static_cast<std::size_t>(shapes[part++][axis]);
        CHECK(y[i] == numbers[part][place(at, shapes[part])]);
    }
}

void check_pad(std::mt19937& random, const Shape& shape, const Shape& pads, float value = 0) {
    const Shape whole = padded(shape, pads);
    const auto x = random_numbers(random, shape);
    std::vector<float> y(count_of(whole), -9.0F);
    pad(x.data(), shape, pads, value, y.data(), in_parallel);
    for (std::size_t i = 0; i < y.size(); ++i) {
        auto at = indices(i, whole);
        bool inside = true;
        for (std::size_t d = 0; d < shape.size(); ++d) {
            const auto index = static_cast<std::int64_t>(at[d]) - pads[d];
            inside = inside && index >= 0 && index < shape[d];
            at[d] = static_cast<std::size_t>(index);
        }
        CHECK(y[i] == (inside ? x[place(at, shape)] : value));
    }
}

/// Against one step after the other, from a start to an end, of which negative ones count from behind.
void check_slice(std::mt19937& random, const Shape& shape, const Shape& starts, const Shape& ends, const Shape& axes,
                 const Shape& steps) {
    std::vector<Indices> chosen(shape.size());
    for (std::size_t d = 0; d < shape.size(); ++d)
        for (std::size_t index = 0; index < static_cast<std::size_t>(shape[d]); ++index) chosen[d].push_back(index);
    for (std::size_t i = 0; i < axes.size(); ++i) {
        const std::int64_t size = shape[static_cast<std::size_t>(axes[i])];
        auto& indices_there = chosen[static_cast<std::size_t>(axes[i])];
        indices_there.clear();
        const std::int64_t first = std::max<std::int64_t>(0, starts[i] < 0 ? starts[i] + size : starts[i]);
        const std::int64_t end = std::min(size, ends[i] < 0 ? ends[i] + size : ends[i]);
        for (std::int64_t index = first; index < end; index += steps[i])
            indices_there.push_back(static_cast<std::size_t>(index));
    }
    const auto part = spans(shape, starts, ends, axes, steps);
    Shape sizes;
    for (const auto& span : part) sizes.push_back(span.size);
    for (std::size_t d = 0; d < shape.size(); ++d) CHECK(sizes[d] == static_cast<std::int64_t>(chosen[d].size()));
    const auto x = random_numbers(random, shape);
    std::vector<float> y(count_of(sizes), -9.0F);
    slice(x.data(), shape, part, y.data(), in_parallel);
    for (std::size_t i = 0; i < y.size(); ++i) {
        auto at = indices(i, sizes);
        for (std::size_t d = 0; d < at.size(); ++d) at[d] = chosen[d][at[d]];
        CHECK(y[i] == x[place(at, shape)]);
    }
}

/// Against the rules of GatherElements and ScatterElements, on a map that is put into blocks here.
void check_places(std::mt19937& random, const Shape& plain, std::int64_t block, std::size_t axis, std::int64_t images) {
    const Shape blocked{plain[0], plain[1] / block, plain[2], plain[3], block};
    const auto in_blocks = [&](const Indices& at) {
        const auto b = static_cast<std::size_t>(block);
        return place({at[0], at[1] / b, at[2], at[3], at[1] % b}, blocked);
    };
    Shape shape = plain;
    shape[0] = images;
    shape[axis] = 1;
    std::uniform_int_distribution<std::int64_t> any(-plain[axis], plain[axis] - 1);
    std::vector<std::int64_t> places(count_of(shape));
    for (auto& each : places) each = any(random);
    auto x = random_numbers(random, blocked);
    const auto updates = random_numbers(random, shape);
    std::vector<float> found(count_of(shape));
    std::vector<float> changed(x.size());
    gather(x.data(), blocked, axis, places.data(), shape, found.data(), in_parallel);
    scatter(x.data(), blocked, axis, places.data(), shape, updates.data(), changed.data(), in_parallel);
    auto expected = x;
    for (std::size_t i = 0; i < places.size(); ++i) {
        auto at = indices(i, shape);
        at[axis] = static_cast<std::size_t>((places[i] + plain[axis]) % plain[axis]);
        CHECK(found[i] == x[in_blocks(at)]);
        expected[in_blocks(at)] = updates[i];
    }
    CHECK(changed == expected);
    scatter(x.data(), blocked, axis, places.data(), shape, updates.data(), x.data(), in_parallel);
    CHECK(x == expected);
}

Shape random_shape(std::mt19937& random, std::size_t rank, std::int64_t least) {
    Shape shape(rank);
    for (auto& size : shape) size = std::uniform_int_distribution<std::int64_t>(least, 7)(random);
    return shape;
}

void random_shapes() {
    std::mt19937 random(0);
    std::bernoulli_distribution one_in_three(1.0 / 3);
    for (int i = 0; i < 500; ++i) {
        const auto shape = random_shape(random, 1 + static_cast<std::size_t>(i) % 5, i % 50 == 0 ? 0 : 1);
        Shape x_shape = shape;
        Shape keep_shape = shape;
        for (auto* const operand : {&x_shape, &keep_shape}) {
            for (auto& size : *operand)
                if (one_in_three(random)) size = 1;
            if (one_in_three(random)) operand->erase(operand->begin());
        }
        check_mask(random, x_shape, keep_shape);
        check_greater(random, shape, i % 2 == 0 ? 0.0F : 1.5F);
    }
    for (int i = 0; i < 500; ++i) {
        const auto shape = random_shape(random, 1 + static_cast<std::size_t>(i) % 5, 1);
        check_arg_max(random_numbers(random, shape), shape, static_cast<std::size_t>(i) % shape.size());
    }
}

void random_copies() {
    std::mt19937 random(2);
    std::uniform_int_distribution<std::int64_t> few(-1, 2);
    for (int i = 0; i < 500; ++i) {
        const auto shape = random_shape(random, 1 + static_cast<std::size_t>(i) % 5, i % 50 == 0 ? 0 : 1);
        const std::size_t axis = static_cast<std::size_t>(i) % shape.size();
        std::vector<Shape> shapes(1 + static_cast<std::size_t>(i) % 3, shape);
        for (auto& each : shapes) each[axis] = 1 + (each[axis] + few(random) + 1) % 3;
        check_concat(random, shapes, axis);
        Shape pads(2 * shape.size());
        for (std::size_t d = 0; d < pads.size(); ++d) pads[d] = shape[d % shape.size()] > 2 ? few(random) : 1;
        check_pad(random, shape, pads, static_cast<float>(few(random)));
        Shape axes(shape.size());
        std::iota(axes.begin(), axes.end(), 0);
        std::shuffle(axes.begin(), axes.end(), random);
        axes.resize(static_cast<std::size_t>(i) % (shape.size() + 1));
        const auto any = [&](std::int64_t least, std::int64_t most) {
            Shape numbers(axes.size());
            for (auto& each : numbers) each = std::uniform_int_distribution<std::int64_t>(least, most)(random);
            return numbers;
        };
        check_slice(random, shape, any(-9, 9), any(-9, 9), axes, any(1, 4));
    }
}

void random_places() {
    std::mt19937 random(3);
    for (int i = 0; i < 200; ++i) {
        auto shape = random_shape(random, 4, 1);
        const std::int64_t block = i % 2 == 0 ? 8 : 2;
        shape[1] *= block;
        const std::int64_t images = std::uniform_int_distribution<std::int64_t>(1, shape[0])(random);
        check_places(random, shape, block, 1 + static_cast<std::size_t>(i) % 3, images);
    }
}

/// Larger than a piece, and of sizes that no vector divides.
void large() {
    std::mt19937 random(1);
    check_mask(random, {3, 2, 5, 61, 67}, {2, 5, 61, 67});
    check_mask(random, {2, 40000}, {40000});
    check_mask(random, {2, 40000}, {2, 1});
    check_greater(random, {3, 40001}, 0);
    check_concat(random, {{3, 50, 1, 161}, {3, 50, 2, 161}}, 2);
    check_concat(random, {{40000}, {1}}, 0);
    check_pad(random, {3, 28, 1, 28, 1, 16}, {0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0});
    check_pad(random, {2, 64, 29, 16}, {0, -1, 1, 0, 0, 1, -2, 0});
    check_pad(random, {64, 56, 57, 1}, {0, 0, 0, 0, 0, 0, 0, 0});
    check_pad(random, {64, 56, 57, 1}, {0, 0, 0, 0, 0, 0, 0, 1});
    check_pad(random, {30000, 1}, {-29999, 0, 0, 40000});
    const std::int64_t most = std::numeric_limits<std::int64_t>::max();
    check_slice(random, {2, 4, 111, 56, 16}, {1, 0}, {most, most}, {3, 2}, {2, 2});
    check_slice(random, {50000}, {1}, {most}, {0}, {3});
    check_slice(random, {50000}, {-most - 1}, {most}, {0}, {most / 2});
    for (const Shape& shape : {Shape{2, 5, 61, 67}, Shape{3, 30000}, Shape{30000, 3}, Shape{1, 129, 1000}})
        for (std::size_t axis = 0; axis < shape.size(); ++axis)
            check_arg_max(random_numbers(random, shape), shape, axis);
}

void not_numbers() {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> x{nan, -infinity, 1, nan, infinity, infinity};
    std::vector<float> y(6);
    const std::vector<std::uint8_t> keep{0, 1, 0, 1, 0, 1};
    mask(x.data(), {6}, keep.data(), {6}, y.data(), in_parallel);
    CHECK(y[0] == 0 && y[1] == -infinity && y[2] == 0 && y[3] != y[3] && y[4] == 0 && y[5] == infinity);
    std::vector<std::uint8_t> greater_than(6, 9);
    greater(x.data(), {6}, 0, greater_than.data(), in_parallel);
    CHECK((greater_than == std::vector<std::uint8_t>{0, 0, 1, 0, 1, 1}));
    check_arg_max(x, {2, 3}, 1);
    check_arg_max(x, {2, 3}, 0);
    check_arg_max({-infinity, -infinity}, {2}, 0);
}

void refusals() {
    const auto refuses = [](const auto& function) {
        try {
            function();
        } catch (const std::invalid_argument&) {
            return true;
        }
        return false;
    };
    CHECK(refuses([] { broadcast({2, 3}, {2}); }));
    CHECK(refuses([] { broadcast({0}, {2}); }));
    CHECK(refuses([] { concatenated({{2, 3}, {2, 4}}, 0); }));
    CHECK(refuses([] { concatenated({{2, 3}, {2}}, 0); }));
    CHECK(refuses([] { concatenated({{2}}, 1); }));
    CHECK(refuses([] { padded({2, 3}, {0, 0}); }));
    CHECK(refuses([] { padded({2, 3}, {0, -2, 0, -2}); }));
    CHECK(refuses([] { padded({2, 3}, {0, -4, 0, 5}); }));
    CHECK(refuses([] { spans({2, 3}, {0}, {1}, {2}, {1}); }));
    CHECK(refuses([] { spans({2, 3}, {0}, {1}, {-1}, {1}); }));
    CHECK(refuses([] { spans({2, 3}, {0}, {1}, {0}, {0}); }));
    CHECK(refuses([] { spans({2, 3}, {1}, {0}, {0}, {-1}); }));
    CHECK(refuses([] { spans({2, 3}, {0, 0}, {1}, {0}, {1}); }));
    CHECK(refuses([] { spans({2, 3}, {0}, {1, 1}, {0}, {1}); }));
    CHECK(refuses([] { spans({2, 3}, {0}, {1}, {0}, {1, 1}); }));
    std::vector<float> map(12);
    const auto gathers = [&](const Shape& x, std::size_t axis, const std::vector<std::int64_t>& places,
                             const Shape& shape) {
        return !refuses([&] { gather(map.data(), x, axis, places.data(), shape, map.data(), in_parallel); });
    };
    CHECK(gathers({1, 1, 2, 3, 2}, 2, {-2, 1, 0, 0, 0, 0}, {1, 2, 1, 3}));
    CHECK(!gathers({1, 1, 2, 3, 2}, 2, {-3, 1, 0, 0, 0, 0}, {1, 2, 1, 3}));
    CHECK(!gathers({1, 1, 2, 3, 2}, 2, {0, 2, 0, 0, 0, 0}, {1, 2, 1, 3}));
    CHECK(!gathers({1, 1, 2, 3, 2}, 2, {0, 0, 0, 0, 0, 0}, {1, 2, 2, 3}));
    CHECK(!gathers({1, 1, 2, 3, 2}, 2, {0, 0, 0, 0, 0, 0}, {2, 1, 1, 3}));
    CHECK(!gathers({1, 1, 2, 3, 2}, 0, {0}, {1, 2, 2, 3}));
    CHECK(!gathers({1, 2, 2, 3}, 2, {0}, {1, 2, 1, 3}));
    std::vector<std::int64_t> y(2);
    CHECK(refuses([&] { arg_max(nullptr, {2, 0}, 1, y.data(), in_parallel); }));
}

}  // namespace

int main() {
    random_shapes();
    random_copies();
    random_places();
    large();
    not_numbers();
    refusals();
}
