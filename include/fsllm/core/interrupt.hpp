// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <string>

namespace fsllm {

/// From now on SIGINT, SIGTERM and SIGUSR1 print `note` and then, where `deferred`, only set the flag that
/// interrupted() tells, so that the work can stop at a good point; else they end the process as they would by
/// themselves. A second signal always ends it, unless they are `ignored`: a rank that ends with its own exit
/// code is not ended by a launcher that has seen another rank's. May be called again whenever the note
/// changes; it is cut at 500 bytes.
enum class OnSignal { end_process, deferred, ignored };
void set_signal_note(std::string const& note, OnSignal action);

/// From then on interrupted() is true, as if a deferred signal had come.
void set_deadline(std::chrono::steady_clock::time_point when);

/// Whether a deferred signal has come, or the deadline.
bool interrupted();
bool deadline_has_come();

/// Files above a limit, and pipes that nobody reads, become errors of the write instead of a silent end.
void ignore_write_signals();

}  // namespace fsllm
