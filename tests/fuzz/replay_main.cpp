// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target over a corpus without libFuzzer: each file as it is, then `mutations` damaged copies of
// each.
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

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size);

namespace {

std::string bytes_of(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// One to four of: a flipped bit, another byte, a removed run, a doubled run, an end cut off.
std::string mutated(std::string bytes, std::mt19937_64& random) {
  for (uint64_t steps = 1 + random() % 4; steps > 0 && !bytes.empty(); --steps) {
    size_t const at = random() % bytes.size(),
                 length = 1 + random() % std::min<size_t>(bytes.size() - at, 16);
    switch (random() % 5) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
        break;
      case 1:
        bytes[at] = static_cast<char>(random());
        break;
      case 2:
        bytes.erase(at, length);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, length));
        break;
      default:
        bytes.resize(at);
        break;
    }
  }
  return bytes;
}

void run(std::string const& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<uint8_t const*>(bytes.data()), bytes.size());
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
  int const mutations = argc > 2 ? std::atoi(argv[2]) : 0;
  std::mt19937_64 random(1);
  for (auto const& file : files) {
    std::printf("%s\n", file.c_str());
    std::fflush(stdout);
    auto const bytes = bytes_of(file);
    run(bytes);
    for (int i = 0; i < mutations; ++i) run(mutated(bytes, random));
  }
  std::printf("%zu files, %d mutations of each\n", files.size(), mutations);
}
