// SPDX-License-Identifier: Apache-2.0
// What programs say of failures. Apart from program.cpp, for a program that needs neither MPI nor LibTorch.
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <new>
#include <system_error>
#include <thread>

#include "fsllm/app/program.hpp"
#include "fsllm/core/utf8.hpp"

namespace fsllm {

void print_error(std::string const& message) {
  std::cerr << "error: " << printable(message) << std::endl;
}

Failure failure_of(std::exception const& error) {
  if (dynamic_cast<Error const*>(&error) != nullptr) return {error.what()};
  std::string const text = error.what();
  bool const allocation = dynamic_cast<std::bad_alloc const*>(&error) != nullptr ||
                          text.find("can't allocate memory") != std::string::npos ||
                          text.find("out of memory") != std::string::npos;
  if (allocation)
    return {
        fmt::format("out of memory ({}). Use a smaller dataloader.batch_size or llm.tok_len, another "
                    "train.storage_dtype, fewer ranks a machine, or a machine with more memory.",
                    text.substr(0, text.find('\n')))};
  if (auto const* file = dynamic_cast<std::filesystem::filesystem_error const*>(&error))
    return {fmt::format("cannot use {} ({}). Check the path and its permissions.", file->path1().string(),
                        file->code().message())};
  if (auto const* system = dynamic_cast<std::system_error const*>(&error))
    return {fmt::format("the system refuses ({}: {}). Check its limits (ulimit -a).", system->what(),
                        system->code().message())};
  return {fmt::format("internal: {}", text), kExitInternal};
}

bool is_silent_rank() {
  // SLURM_PROCID is that of mpirun's daemon where another one is there.
  for (auto const* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"})
    if (char const* const rank = std::getenv(name); rank != nullptr) return std::atoi(rank) > 0;
  return false;
}

void print_error_once(std::string const& message) {
  if (is_silent_rank())
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  else
    print_error(message);
}

}  // namespace fsllm
