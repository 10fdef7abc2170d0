// Drives a fuzz target where the compiler brings no libFuzzer (GCC): the files of a corpus, then random inputs.
//
//     fuzz_localize RUNS CORPUS_FOLDER

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char* const* argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s RUNS CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    int seeds = 0;
    for (const auto& entry : std::filesystem::directory_iterator(argv[2])) {
        std::ifstream file(entry.path(), std::ios::binary);
        const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
        const std::vector<std::uint8_t> input(bytes.begin(), bytes.end());
        LLVMFuzzerTestOneInput(input.data(), input.size());
        ++seeds;
    }
    const long runs = std::strtol(argv[1], nullptr, 10);
    std::mt19937_64 random(1);
    std::vector<std::uint8_t> input;
    for (long run = 0; run < runs; ++run) {
        input.resize(random() % 4096);
        // Sparse bytes make masks of every density, runs of equal bytes make plateaus.
        const std::uint64_t density = random() % 9;
        std::uint8_t last = 0;
        for (auto& byte : input) {
            if (random() % 8 < density) last = static_cast<std::uint8_t>(random());
            byte = last;
        }
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%d corpus files, %ld random inputs: no fault\n", seeds, runs);
    return 0;
}
