// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target over a corpus without libFuzzer: each file as it is, then `mutations` damaged copies of
// each (without that argument FSLLM_MUTATIONS, of all files together). None may take more than 10 s, or 1 GiB
// more than the program had at its start.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "mutation.hpp"

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size);

namespace {

std::string bytes_of(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

constexpr unsigned kSeconds = 10;
constexpr long kKilobytes = 1 << 20;

void took_too_long(int) {
  static char const message[] = "the last mutation of this file takes more than 10 s\n";
  [[maybe_unused]] auto const written = ::write(STDERR_FILENO, message, sizeof message - 1);
  ::_exit(1);
}

/// Most memory that this process ever had.
long peak_kilobytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

void run(std::string const& bytes) {
  static long const at_start = peak_kilobytes();
  ::alarm(kSeconds);
  LLVMFuzzerTestOneInput(reinterpret_cast<uint8_t const*>(bytes.data()), bytes.size());
  ::alarm(0);
  if (peak_kilobytes() - at_start <= kKilobytes) return;
  std::fprintf(stderr, "a mutation of this file takes %ld MiB\n", (peak_kilobytes() - at_start) / 1024);
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s CORPUS [MUTATIONS]\n", argv[0]);
    return 2;
  }
  std::vector<std::filesystem::path> files;
  for (auto const& entry : std::filesystem::directory_iterator(argv[1])) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    std::fprintf(stderr, "%s is empty\n", argv[1]);
    return 1;
  }
  ::signal(SIGALRM, took_too_long);
  int mutations = argc > 2 ? std::atoi(argv[2]) : 0;
  if (char const* const of_all = std::getenv("FSLLM_MUTATIONS"); of_all != nullptr && argc == 2)
    mutations = (std::atoi(of_all) + static_cast<int>(files.size()) - 1) / static_cast<int>(files.size());
  std::mt19937_64 random(1);
  for (auto const& file : files) {
    std::printf("%s\n", file.c_str());
    std::fflush(stdout);
    auto const bytes = bytes_of(file);
    run(bytes);
    for (int i = 0; i < mutations; ++i) run(fsllm::test::mutated(bytes, random));
  }
  std::printf("%zu files, %d mutations of each, peak %ld MiB\n", files.size(), mutations,
              peak_kilobytes() / 1024);
}
