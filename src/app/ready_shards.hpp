// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "setup.hpp"

namespace fsllm {

/// data.shards or hpc.shard_roots: nothing is sharded in this run.
bool has_ready_shards(Setup const& s);

/// Settings of rows that are not given come from the index of data.shards. A given prompt template that is
/// not theirs is an Error, whichever folder this rank reads; of a data set, splitter or length that is not
/// theirs a warning says that it has no effect.
void take_settings_of_shards(Setup& s, Communicator const& comm);

void check_client_count(Setup const& s, ClientData const& data);

/// Collective: the prompt template of the rows, as far as it is known: with ready shards what they say.
std::optional<TemplateConfig> template_of_rows(Setup const& s, Communicator const& comm);

}  // namespace fsllm
