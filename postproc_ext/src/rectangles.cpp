#include "crosseai/postproc/rectangles.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>

#include "multiversion.hpp"

namespace crosseai::postproc {
namespace {

using std::size_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr uint16_t no_limit = 0xffff;  // `left` and `right` of a zero: it does not narrow the bar below

// ---- Runs of ones in a row, eight pixels at a time: a table holds what is beside each pixel in all 256 blocks.

constexpr size_t block_size = 8;
constexpr unsigned full_block = 0xff;

struct Block {
    // Of each pixel and of the one that follows the block:
    uint16_t ones[block_size + 1] = {};  // directly beside it, inside the block
    uint16_t open[block_size + 1] = {};  // all bits set where those reach the block's edge, so that the run goes on
};

/// What is on the left (step -1) or on the right (step 1) of the pixels of every block.
constexpr std::array<Block, 256> blocks_beside(int step) {
    std::array<Block, 256> table{};
    for (unsigned bits = 0; bits < 256; ++bits) {
        for (int i = 0; i < 9; ++i) {
            const int pixel = i < 8 ? i : step < 0 ? 8 : -1;
            int other = pixel + step;
            while (other >= 0 && other < 8 && (bits >> other & 1)) other += step;
            table[bits].ones[i] = static_cast<uint16_t>((other - pixel) * step - 1);
            table[bits].open[i] = other < 0 || other > 7 ? 0xffff : 0;
        }
    }
    return table;
}

constexpr std::array<Block, 256> on_left = blocks_beside(-1);
constexpr std::array<Block, 256> on_right = blocks_beside(1);

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pack() puts pixel k into bit k by its byte order");

inline unsigned pack(const uint8_t* pixels) {
    uint64_t bytes = 0;
    std::memcpy(&bytes, pixels, sizeof bytes);
    return static_cast<unsigned>(bytes * 0x0102040810204080U >> 56);
}

/// Ones at either end of a block, 0 to 8.
inline unsigned ones_at_left_end(unsigned block) { return static_cast<unsigned>(__builtin_ctz(~block)); }
inline unsigned ones_at_right_end(unsigned block) { return static_cast<unsigned>(__builtin_clz(~(block << 24))); }

/// Length of the run of ones that ends before `column` or begins at it; blocks begin at `column`.
unsigned run_before(const uint8_t* row, size_t column) {
    unsigned run = 0;
    unsigned block = full_block;
    for (; column > 0 && block == full_block; column -= block_size) {
        block = pack(row + column - block_size);
        run += ones_at_right_end(block);
    }
    return run;
}

unsigned run_from(const uint8_t* row, size_t column, size_t stride) {
    unsigned run = 0;
    unsigned block = full_block;
    for (; column < stride && block == full_block; column += block_size) {
        block = pack(row + column);
        run += ones_at_left_end(block);
    }
    return run;
}

/// Writes the runs beside a block's pixels, and returns that beside the pixel that follows it.
inline unsigned write_runs(const Block& block, unsigned beyond, uint16_t* __restrict runs) {
    for (size_t k = 0; k < block_size; ++k)
        runs[k] = static_cast<uint16_t>(block.ones[k] + (block.open[k] & static_cast<uint16_t>(beyond)));
    return block.ones[block_size] + (block.open[block_size] & beyond);
}

CROSSEAI_MULTIVERSION void find_runs(const uint8_t* row, size_t begin, size_t end, unsigned ones_before,
                                     unsigned ones_after, uint16_t* left, uint16_t* right) {
    for (size_t x = begin; x < end; x += block_size)
        ones_before = write_runs(on_left[pack(row + x)], ones_before, left + x);
    for (size_t x = end; x > begin; x -= block_size)
        ones_after = write_runs(on_right[pack(row + x - block_size)], ones_after, right + x - block_size);
}

// ---- One row of the dynamic programme.

constexpr size_t lanes = 16;  // columns are processed by whole vectors

inline uint32_t bar_area(uint16_t up, uint16_t left, uint16_t right) {
    return uint32_t{up} * static_cast<uint16_t>(left + right + 1);
}

/// Brings columns of a row up to date with the row above; says whether that changed anything.
CROSSEAI_MULTIVERSION bool update_row(const uint8_t* __restrict mask, const uint16_t* __restrict run_left,
                                      const uint16_t* __restrict run_right, const uint16_t* __restrict above_up,
                                      const uint16_t* __restrict above_left, const uint16_t* __restrict above_right,
                                      uint16_t* __restrict up, uint16_t* __restrict left, uint16_t* __restrict right,
                                      size_t begin, size_t end) {
    uint16_t change = 0;
    for (size_t x = begin; x < end; ++x) {
        const auto one = static_cast<uint16_t>(-mask[x]);
        const auto zero = static_cast<uint16_t>(~one);
        const auto new_up = static_cast<uint16_t>((above_up[x] + 1) & one);
        const auto new_left = static_cast<uint16_t>(std::min(above_left[x], run_left[x]) | zero);
        const auto new_right = static_cast<uint16_t>(std::min(above_right[x], run_right[x]) | zero);
        change = static_cast<uint16_t>(change | (new_up ^ up[x]) | (new_left ^ left[x]) | (new_right ^ right[x]));
        up[x] = new_up;
        left[x] = new_left;
        right[x] = new_right;
    }
    return change != 0;
}

/// Shortens what is beside bars taller than `tall` to a distance that changes by `step` from column to column; says
/// whether that changed anything.
CROSSEAI_MULTIVERSION bool shorten(const uint16_t* __restrict up, size_t tall, size_t size, size_t distance, int step,
                                   uint16_t* __restrict beside) {
    uint16_t change = 0;
    for (size_t i = 0; i < size; ++i) {
        const auto limit = static_cast<uint16_t>(static_cast<int>(distance) + step * static_cast<int>(i));
        const uint16_t shortened = up[i] > static_cast<uint16_t>(tall) ? std::min(beside[i], limit) : beside[i];
        change = static_cast<uint16_t>(change | (shortened ^ beside[i]));
        beside[i] = shortened;
    }
    return change != 0;
}

CROSSEAI_MULTIVERSION uint32_t largest_bar_area(const uint16_t* up, const uint16_t* left, const uint16_t* right,
                                                size_t size) {
    uint32_t area = 0;
    for (size_t x = 0; x < size; ++x) area = std::max(area, bar_area(up[x], left[x], right[x]));
    return area;
}

}  // namespace

void RectangleSearch::start(MaskView mask) {
    height_ = mask.height;
    stride_ = (mask.width + lanes - 1) / lanes * lanes;
    mask_.assign(height_ * stride_, 0);
    for (size_t y = 0; y < height_; ++y) std::copy_n(mask.row(y), mask.width, mask_.data() + y * stride_);
    for (auto* plane : {&up_, &left_, &right_}) plane->resize((height_ + 1) * stride_);
    std::fill_n(up_.begin(), stride_, uint16_t{0});
    std::fill_n(left_.begin(), stride_, no_limit);
    std::fill_n(right_.begin(), stride_, no_limit);
    run_left_.resize(stride_);
    run_right_.resize(stride_);
    row_area_.resize(height_);
    stale_.assign(height_, 0);
    for (size_t y = 0; y < height_; ++y) {
        update(y, {0, stride_});
        row_area_[y] = row_area(y);
    }
}

bool RectangleSearch::update(size_t y, Columns columns) {
    const uint8_t* mask = mask_.data() + y * stride_;
    const size_t above = y * stride_;
    const size_t here = above + stride_;
    find_runs(mask, columns.begin, columns.end, run_before(mask, columns.begin), run_from(mask, columns.end, stride_),
              run_left_.data(), run_right_.data());
    return update_row(mask, run_left_.data(), run_right_.data(), up_.data() + above, left_.data() + above,
                      right_.data() + above, up_.data() + here, left_.data() + here, right_.data() + here,
                      columns.begin, columns.end);
}

uint32_t RectangleSearch::row_area(size_t y) const {
    const size_t here = (y + 1) * stride_;
    return largest_bar_area(up_.data() + here, left_.data() + here, right_.data() + here, stride_);
}

/// Clearing only shrinks areas, so a stale row needs a look only if its bound reaches the best row so far.
uint32_t RectangleSearch::largest_area() {
    uint32_t area = 0;
    for (size_t y = 0; y < height_; ++y)
        if (!stale_[y]) area = std::max(area, row_area_[y]);
    for (size_t y = 0; y < height_; ++y) {
        if (!stale_[y] || row_area_[y] < area) continue;
        row_area_[y] = row_area(y);
        stale_[y] = 0;
        area = std::max(area, row_area_[y]);
    }
    return area;
}

Box RectangleSearch::largest() {
    const uint32_t area = largest_area();
    if (area == 0) return {};
    const auto earlier = [](const Box& a, const Box& b) {
        return std::tuple(a.y0, a.x0, a.y1) < std::tuple(b.y0, b.x0, b.y1);
    };
    Box best{0, static_cast<std::int32_t>(max_side), 0, 0};
    for (size_t y = 0; y < height_; ++y) {
        if (y + 1 > best.y0 + uint64_t{area}) break;  // no bar of this area reaches that high from here
        if (stale_[y] || row_area_[y] != area) continue;
        const size_t here = (y + 1) * stride_;
        for (size_t x = 0; x < stride_; ++x) {
            const uint16_t up = up_[here + x];
            const uint16_t left = left_[here + x];
            const uint16_t right = right_[here + x];
            if (bar_area(up, left, right) != area) continue;
            const Box box{static_cast<std::int32_t>(x - left), static_cast<std::int32_t>(y + 1 - up),
                          static_cast<std::int32_t>(x + right + 1), static_cast<std::int32_t>(y + 1)};
            best = std::min(best, box, earlier);
        }
    }
    return best;
}

// No bar but these changes. Beside the box: one that passes its rows and reached into it now ends at its side; all the
// bar's rows did reach into it, so that none needs another look. Below the box: a bar that came out of it starts anew.
void RectangleSearch::clear(const Box& box) {
    const auto top = static_cast<size_t>(box.y0);
    const auto bottom = static_cast<size_t>(box.y1);
    const auto x0 = static_cast<size_t>(box.x0);
    const auto x1 = static_cast<size_t>(box.x1);
    size_t begin = x0;
    size_t end = x1;
    bool changed = true;
    for (size_t y = top; y < height_ && changed; ++y) {
        const size_t here = (y + 1) * stride_;
        size_t rows_below = 0;
        if (y < bottom) {
            uint8_t* row = mask_.data() + y * stride_;
            while (begin > 0 && row[begin - 1]) --begin;
            while (end < stride_ && row[end]) ++end;
            std::fill(row + x0, row + x1, uint8_t{0});
            std::fill_n(up_.data() + here + x0, x1 - x0, uint16_t{0});
            std::fill_n(left_.data() + here + x0, x1 - x0, no_limit);
            std::fill_n(right_.data() + here + x0, x1 - x0, no_limit);
        } else {
            rows_below = y + 1 - bottom;
        }
        const bool on_left = shorten(up_.data() + here + begin, rows_below, x0 - begin, x0 - begin - 1, -1,
                                     right_.data() + here + begin);
        const bool on_right = shorten(up_.data() + here + x1, rows_below, end - x1, 0, 1, left_.data() + here + x1);
        changed = y < bottom || on_left || on_right;
        if (changed) stale_[y] = 1;
    }
    const Columns blocks{x0 / lanes * lanes, (x1 + lanes - 1) / lanes * lanes};
    for (size_t y = bottom; y < height_ && update(y, blocks); ++y) stale_[y] = 1;
}

void maximal_rectangles(MaskView mask, std::size_t max_candidates, std::int64_t min_area, RectangleSearch& search,
                        std::vector<Box>& candidates) {
    candidates.clear();
    search.start(mask);
    for (;;) {
        const Box box = search.largest();
        if (box.empty() || box.area() < min_area) return;
        candidates.push_back(box);
        if (candidates.size() == max_candidates) return;
        search.clear(box);
    }
}

}  // namespace crosseai::postproc
