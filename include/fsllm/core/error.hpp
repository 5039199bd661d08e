// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fmt/core.h>

#include <stdexcept>
#include <string>

namespace fsllm {

/// A problem that the user can act on: bad configuration, data, model or command line, a file that
/// cannot be read or written. `main` prints its message once and exits with code 2.
/// Grammar of the message: problem (why) what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A broken promise inside the program itself; exit code 1.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void fail(std::string const& message);
[[noreturn]] void fail_internal(char const* file, int line, std::string const& message);

}  // namespace fsllm

/// Always on: input, files, MPI, HDF5. The arguments after the condition are a fmt format and its values.
#define FSLLM_CHECK(condition, ...)            \
  do {                                         \
    if (!(condition)) [[unlikely]]             \
      ::fsllm::fail(fmt::format(__VA_ARGS__)); \
  } while (false)

/// Debug builds only: programming errors.
#ifdef FSLLM_DEBUG
#define FSLLM_ASSERT(condition)                               \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::fsllm::fail_internal(__FILE__, __LINE__, #condition); \
  } while (false)
#else
#define FSLLM_ASSERT(condition) \
  do {                          \
  } while (false)
#endif
