// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"

namespace fsllm {

/// A signal came while a client was trained.
struct Interrupted {};

/// An Error where nobody would end the ranks any more.
inline void check_launcher() {
  FSLLM_CHECK(
      !launcher_has_ended(),
      "mpirun (or its daemon) has ended while its ranks were at work. Continue the run with --resume.");
}

/// Between two steps: throws Interrupted where a signal has come, and that Error.
inline void stop_where_asked() {
  check_launcher();
  if (interrupted()) throw Interrupted();
}

}  // namespace fsllm
