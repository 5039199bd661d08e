// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fsllm {

/// Seconds since the operating system created this process: dynamic linking and start-up included.
double seconds_since_process_start();

}  // namespace fsllm
