// One function, compiled for several instruction sets and chosen when the library loads.
#pragma once

// Sanitizers instrument the code that chooses, which runs before they are ready.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(CROSSEAI_NO_MULTIVERSION)
#define CROSSEAI_MULTIVERSION __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define CROSSEAI_MULTIVERSION
#endif
