// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "fsllm/fed/run_directory.hpp"

namespace fsllm {

/// The records of TensorBoard's event file for one event of metrics.jsonl; "" for the end, whose numbers are
/// those of the last round. What is no number (a loss that is not finite) has no point.
std::string curve_records(nlohmann::ordered_json const& event, double wall_time);

/// The whole event file of a run, from metrics.jsonl and the times in metrics_ranks.jsonl; rounds without one
/// (of earlier versions) get `now`. Of a run that goes on it begins with the bytes that the file has, which a
/// TensorBoard that is open has read.
std::string curves_of_run(RunDirectory const& run, double now);

}  // namespace fsllm
