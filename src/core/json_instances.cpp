// SPDX-License-Identifier: Apache-2.0
#include "json_instances.hpp"

template class nlohmann::basic_json<>;
template class nlohmann::basic_json<nlohmann::ordered_map>;
FSLLM_JSON_INSTANCES(, nlohmann::json)
FSLLM_JSON_INSTANCES(, nlohmann::ordered_json)
