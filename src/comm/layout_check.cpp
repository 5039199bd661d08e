// SPDX-License-Identifier: Apache-2.0
#include <functional>
#include <sstream>
#include <vector>

#include "fsllm/comm/collective.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// The operation, then one line a tensor.
std::string describe(TensorMap const& map, std::string const& what) {
  std::ostringstream text;
  text << what << '\n';
  for (auto const& [name, tensor] : map)
    text << name << ' ' << tensor.sizes() << ' ' << c10::toString(tensor.scalar_type()) << '\n';
  return text.str();
}

/// The first line in which two texts differ, of each; "nothing" where one has ended.
std::pair<std::string, std::string> first_difference(std::string const& a, std::string const& b) {
  std::istringstream left(a), right(b);
  std::string x, y;
  do {
    if (!std::getline(left, x)) x = "nothing";
    if (!std::getline(right, y)) y = "nothing";
  } while (x == y);
  return {x, y};
}

}  // namespace

void check_layout_across_ranks(Communicator const& comm, TensorMap const& map, std::string const& what) {
  if (comm.all_equal(layout_fingerprint(map, std::hash<std::string>()(what)))) return;
  auto const all = comm.all_gather(describe(map, what));
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    auto const [first, other] = first_difference(all[0], all[rank]);
    fail(
        fmt::format("ranks disagree on what to exchange (rank 0: {}; rank {}: {}). Start every rank with the "
                    "same program, "
                    "configuration and data.",
                    first, rank, other));
  }
}

}  // namespace fsllm
