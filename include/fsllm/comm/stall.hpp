// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

namespace fsllm {

/// What this rank does from now on ("training client 17, step 4 of 30"): what is said of it when others wait
/// for it. May be called at every step.
void set_activity(std::string const& text);
/// Tells rank 0 how many steps of a round this rank has done, and says at rank 0 how many all others have.
/// Nobody waits; where nobody watches rank 0, nothing is sent, and 0 is said.
int64_t share_progress(int64_t round, int64_t done);

/// Ranks for which others have waited this long in a collective call of the world are named in a warning, and
/// again after twice the time; 0: never. 60 as the program begins.
void set_stall_warning(double seconds);

}  // namespace fsllm
