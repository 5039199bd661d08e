// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/mailbox.hpp"

#include <gtest/gtest.h>

#include <map>

namespace fsllm {
namespace {

/// Rank 0 gets what each other rank has sent, in the order of its sending, and answers each.
TEST(Mailbox, LettersComeInTheOrderOfTheirSending) {
  auto const world = Communicator::world();
  Mailbox mailbox(world);
  constexpr int64_t kLetters = 20;
  auto const next = [&] {
    auto letter = mailbox.receive();
    while (!letter) letter = mailbox.receive();
    return *letter;
  };
  if (world.rank() == 0) {
    std::map<int, int64_t> come;
    for (int64_t left = kLetters * (world.size() - 1); left > 0; --left) {
      auto const letter = next();
      auto const number = come[letter.from]++;
      EXPECT_EQ(letter.values, std::vector<int64_t>(static_cast<size_t>(number), letter.from));
    }
    EXPECT_EQ(std::ssize(come), world.size() - 1);
    for (auto const& [rank, count] : come) mailbox.send(rank, {rank, count});
  } else {
    for (size_t length = 0; length < kLetters; ++length)
      mailbox.send(0, std::vector<int64_t>(length, world.rank()));
    EXPECT_EQ(next().values, (std::vector<int64_t>{world.rank(), kLetters}));
  }
  EXPECT_FALSE(mailbox.receive());
  world.barrier();
}

}  // namespace
}  // namespace fsllm
