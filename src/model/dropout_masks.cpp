// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 (Salmon et al. 2011) over the blocks of a mask.
#include "dropout_masks.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "fsllm/core/rng.hpp"

namespace fsllm::detail {
namespace {

constexpr int64_t kWord = 0xffffffff;
constexpr int kLanes = 16;                           ///< blocks that are computed side by side
constexpr int64_t kThreadElements = 32768;           ///< of a mask that are worth a thread
constexpr int64_t kTensorBlocks = int64_t{1} << 20;  ///< that are in memory at once, in some ten tensors

/// The numbers of all lines, in host memory.
struct Numbers {
  int64_t const *key, *place, *row, *head;
};

/// Counters and keys of some blocks side by side.
struct Lanes {
  uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes], k0[kLanes], k1[kLanes];
};

/// philox4x32() of core in every lane: words in the place of counters.
void run_rounds(Lanes& at) {
  for (int round = 0; round < kPhiloxRounds; ++round)
    for (int i = 0; i < kLanes; ++i) {
      uint64_t const p0 = uint64_t{kPhiloxMultipliers[0]} * at.c0[i];
      uint64_t const p1 = uint64_t{kPhiloxMultipliers[1]} * at.c2[i];
      at.c0[i] = static_cast<uint32_t>(p1 >> 32) ^ at.c1[i] ^ at.k0[i];
      at.c2[i] = static_cast<uint32_t>(p0 >> 32) ^ at.c3[i] ^ at.k1[i];
      at.c1[i] = static_cast<uint32_t>(p1);
      at.c3[i] = static_cast<uint32_t>(p0);
      at.k0[i] += kPhiloxSteps[0];
      at.k1[i] += kPhiloxSteps[1];
    }
}

/// The mask's lines begin .. end, whose blocks go through the lanes one line after another.
void keep_lines(bool* mask, Numbers const& of, int64_t width, uint32_t threshold, int64_t begin,
                int64_t end) {
  int64_t const blocks = (width + 3) / 4;
  Lanes lanes{};
  int64_t line = begin, block = 0, done_line = begin, done_block = 0;
  auto const step = [blocks](int64_t& at_line, int64_t& at_block) {
    if (++at_block < blocks) return;
    at_block = 0;
    ++at_line;
  };
  while (line < end) {
    int count = 0;
    for (; count < kLanes && line < end; ++count, step(line, block)) {
      lanes.c0[count] = static_cast<uint32_t>(block);
      lanes.c1[count] = static_cast<uint32_t>(of.place[line]);
      lanes.c2[count] = static_cast<uint32_t>(of.row[line]);
      lanes.c3[count] = static_cast<uint32_t>(of.head[line]);
      lanes.k0[count] = static_cast<uint32_t>(of.key[line]);
      lanes.k1[count] = static_cast<uint32_t>(static_cast<uint64_t>(of.key[line]) >> 32);
    }
    run_rounds(lanes);
    for (int i = 0; i < count; ++i, step(done_line, done_block)) {
      bool const kept[] = {lanes.c0[i] < threshold, lanes.c1[i] < threshold, lanes.c2[i] < threshold,
                           lanes.c3[i] < threshold};
      auto* const elements = mask + done_line * width + 4 * done_block;
      int64_t const left = width - 4 * done_block;
      if (left >= 4)
        std::memcpy(elements, kept, 4);
      else
        std::memcpy(elements, kept, static_cast<size_t>(left));
    }
  }
}

/// Bits 32 to 63 of a product, which int64 holds as a negative number where bit 63 is set.
at::Tensor high(at::Tensor const& product) {
  return product.bitwise_right_shift(32).bitwise_and_(kWord);
}

/// The four words of every block of these lines, int64 [lines, blocks].
std::array<at::Tensor, 4> words_by_tensors(MaskBlocks const& blocks, int64_t begin, int64_t count) {
  auto const part = [&](at::Tensor const& numbers) { return numbers.narrow(0, begin, count).unsqueeze(1); };
  auto const key = part(blocks.key);
  auto k0 = key.bitwise_and(kWord), k1 = high(key);
  std::array<at::Tensor, 4> c{at::arange((blocks.width + 3) / 4, key.options()).unsqueeze(0),
                              part(blocks.place), part(blocks.row), part(blocks.head)};
  for (int round = 0; round < kPhiloxRounds; ++round) {
    auto const p0 = c[0].mul(int64_t{kPhiloxMultipliers[0]}), p1 = c[2].mul(int64_t{kPhiloxMultipliers[1]});
    c = {high(p1).bitwise_xor(c[1]).bitwise_xor(k0), p1.bitwise_and(kWord),
         high(p0).bitwise_xor(c[3]).bitwise_xor(k1), p0.bitwise_and(kWord)};
    k0 = k0.add(int64_t{kPhiloxSteps[0]}).bitwise_and_(kWord);
    k1 = k1.add(int64_t{kPhiloxSteps[1]}).bitwise_and_(kWord);
  }
  return c;
}

}  // namespace

at::Tensor mask_by_loop(MaskBlocks const& blocks) {
  int64_t const lines = blocks.key.numel(), width = blocks.width;
  auto mask = at::empty({lines, width}, at::kBool);
  auto* const data = mask.mutable_data_ptr<bool>();
  Numbers const of{blocks.key.const_data_ptr<int64_t>(), blocks.place.const_data_ptr<int64_t>(),
                   blocks.row.const_data_ptr<int64_t>(), blocks.head.const_data_ptr<int64_t>()};
  at::parallel_for(0, lines, std::max<int64_t>(1, kThreadElements / width), [&](int64_t begin, int64_t end) {
    keep_lines(data, of, width, blocks.threshold, begin, end);
  });
  return mask;
}

at::Tensor mask_by_tensors(MaskBlocks const& blocks) {
  int64_t const lines = blocks.key.numel(), width = blocks.width;
  auto mask = at::empty({lines, width}, blocks.key.options().dtype(at::kBool));
  int64_t const step = std::max<int64_t>(1, kTensorBlocks * 4 / width);
  for (int64_t begin = 0; begin < lines; begin += step) {
    int64_t const count = std::min(step, lines - begin);
    std::vector<at::Tensor> kept;
    for (auto const& word : words_by_tensors(blocks, begin, count))
      kept.push_back(word.lt(int64_t{blocks.threshold}).expand({count, (width + 3) / 4}));
    mask.narrow(0, begin, count).copy_(at::stack(kept, -1).flatten(1).narrow(1, 0, width));
  }
  return mask;
}

}  // namespace fsllm::detail
